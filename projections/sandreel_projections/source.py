"""What is read, and which tables are made of it: a new table is one more entry in `registry`. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msgspec import Struct
from sqlalchemy import Table

from sandreel_core.bus.port import Stored
from sandreel_core.contract.cursor import Cursor
from sandreel_projections.tables import columns, key_of

# The values of a row's key columns, and one record in the order of its table's columns: plain tuples, because
# hundreds of thousands of them go through COPY.
Key = tuple[Any, ...]
Record = tuple[Any, ...]
# The row afterwards (the one before, if nothing changed), a record for the fold's other table, and what was
# wrong with the event, which sends it to quarantine.
Step = tuple[Struct | None, Record | None, str]


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows that go on from the row before. One source writes each row, from one process at a time.

    table    where the rows are; its primary key begins with the columns of `key`. Where it has more columns (a
             session's incarnation), the row with the greatest is the one that the next event goes on from
    row      the type of a row: its fields are the table's columns, in their order
    key      which row an event belongs to; None: it is nothing to this table
    step     pure and total: (row before, event) → `Step`
    skip     the row after an event of which nothing but its place could be used
    records  the table that a step's records are appended to; it has the columns of `key` too
    topic    what `Source.topic` says of the changes that it takes; None: it is asked about every one
    remembered  at most so many rows stay in memory when they are written, beside those in use: fewer where they are large
    """

    table: Table
    row: type[Struct]
    key: Callable[[Any], Key | None]
    key_width: int
    step: Callable[[Any, Any], Step]
    skip: Callable[[Any, Any], Struct | None] = lambda before, change: before
    records: Table | None = None
    topic: str | None = None
    remembered: int = 20_000

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns that `key` gives the values of."""
        return key_of(self.table)[: self.key_width]


@dataclass(frozen=True, slots=True)
class Append:
    """Records that need no row before. `record` is pure and total; None: the event is nothing to this table. `topic` as
    in `Fold`."""

    table: Table
    record: Callable[[Any], Record | None]
    topic: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One stream, read in its order with a cursor of its own.

    partition  of the log; None for a stream that is not one of its partitions
    decode     (message, epoch of the stream) → change; raises Malformed for what is none
    problem    what is wrong with a change beyond what the folds say; else empty
    topic      what a change is about: most of the log is output, about which few tables need to be asked
    forgets    whether the stream drops what is old, and no archive has it: a rebuild then takes over the rows of
               what is dropped, or stood in a stream that this one has replaced, from the views that are there (by the columns
               `epoch` and `sequence`)
    """

    stream: str
    filters: tuple[str, ...]
    partition: int | None
    decode: Callable[[Stored, str], Any]
    folds: tuple[Fold, ...] = ()
    appends: tuple[Append, ...] = ()
    problem: Callable[[Any], str] = lambda change: ""
    topic: Callable[[Any], str] = lambda change: ""
    forgets: bool = False

    def cursor(self, epoch: str, sequence: int) -> str:
        """A place in it, as people are told of it."""
        return f"{self.stream}:{sequence}" if self.partition is None else str(Cursor(epoch, self.partition, sequence))

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every table that it writes, but those of the cursors and of the quarantine."""
        keyed = [table for fold in self.folds for table in (fold.table, fold.records) if table is not None]
        return (*keyed, *(append.table for append in self.appends))


def check(source: Source) -> None:
    """Raises ValueError when an entry contradicts its table: a bug, found by a test and not by an operator."""
    for fold in source.folds:
        if fold.row.__struct_fields__ != columns(fold.table):
            raise ValueError(f"the rows of {fold.table.name} do not have its columns")
        if fold.records is not None and not set(fold.key_columns) <= set(columns(fold.records)):
            raise ValueError(f"{fold.records.name} does not have the key of {fold.table.name}")
