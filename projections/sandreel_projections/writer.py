"""Writes the views of one source. A batch and its cursor stand in one transaction, so each event counts once."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zlib import crc32

from msgspec import Struct
from sqlalchemy import ARRAY, BigInteger, Integer, Table, Text

from sandreel_core.clock import new_token
from sandreel_core.errors import Conflict, Malformed
from sandreel_projections import tables
from sandreel_projections.batch import Batch, Rows
from sandreel_projections.database import Connection, connected, translated
from sandreel_projections.days import Days
from sandreel_projections.source import Fold, Key, Source
from sandreel_projections.tables import SCHEMA

# First key of the advisory lock, "reel" in ASCII; the second is `lock_key`.
LOCK = 0x7265656C
# How a projector's writing connection is named, before the stream, the process and the host: for `status`.
WRITES = "projector"
_STANDBY_S = 0.5
_POSTGRES_TYPES = {Text: "text", Integer: "integer", BigInteger: "bigint"}


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a source has been written, and into which build of the tables. `at` is the event's time."""

    epoch: str
    sequence: int
    build: str = ""
    at: datetime | None = None


def lock_key(schema: str, stream: str) -> int:
    """Second key of the advisory lock of whoever writes a stream's views in this schema: a signed integer."""
    unsigned = crc32(f"{schema} {stream}".encode())
    return unsigned - (1 << 32) if unsigned >> 31 else unsigned


def ourselves() -> str:
    """This process, as a connection's name tells it: Postgres knows only its own processes."""
    return f"{os.getpid()}@{socket.gethostname()[:24]}"  # such a name has at most 63 bytes


class Writer:
    """One source's only writer, from `lead` on. `write` writes; `read` loads rows and notes the lag.

    The connections' search path says in which schema. A swap of schemas under our hands is met by the cursor, whose
    `build` is another one then: nothing that was folded from rows of before is written over those of now.
    """

    def __init__(self, source: Source, schema: str, write: Connection, read: Connection) -> None:
        self._source = source
        self._schema = schema
        self._write = write
        self._read = read
        self._reading = asyncio.Lock()
        self._days = Days()
        self._at = Reached("", 0)
        self._puts = {fold.table.name: _upsert(fold.table) for fold in source.folds}
        self._loads = {fold.table.name: _load(fold) for fold in source.folds}
        self._folds = {fold.table.name: fold for fold in source.folds}
        self._tables = {table.name: table for table in source.tables}

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str, source: Source, *, schema: str = SCHEMA) -> AsyncGenerator[Writer, None]:
        """Two connections. Raises Unavailable, or Misconfigured for what only an operator can mend."""
        name = WRITES if schema == SCHEMA else "rebuilder"
        who = f"{source.stream} {ourselves()}"
        async with connected(dsn, f"{name} {who}", schema) as write, connected(dsn, f"reader {who}", schema) as read:
            with translated():
                # What a crash of Postgres takes, it takes together with the cursor: it is read again.
                await write.execute("SET synchronous_commit = off")
            yield cls(source, schema, write, read)

    async def lead(self, standby: asyncio.Event | None = None) -> None:
        """Wait, for ever, until nobody else writes this source; `standby` is set if somebody does.

        The lock is the connection's: it goes with the process, however that ends.
        """
        key = lock_key(self._schema, self._source.stream)
        while True:
            with translated():
                if await self._write.fetchval("SELECT pg_try_advisory_lock($1, $2)", LOCK, key):
                    return
            if standby is not None:
                standby.set()
            # Asked for again and again, not waited for: a waiting statement would hold vacuum back for days.
            await asyncio.sleep(_STANDBY_S * (0.5 + random.random()))  # noqa: S311 - jitter

    async def reached(self) -> Reached | None:
        """None for a source of which nothing was written yet."""
        with translated():
            row = await self._write.fetchrow(
                "SELECT epoch, sequence, build FROM cursors WHERE stream = $1", self._source.stream
            )
        if row is None:
            return None
        self._at = Reached(row["epoch"], row["sequence"], row["build"])
        return self._at

    async def begin(self, epoch: str) -> Reached:
        """The first cursor, before the first event of a stream."""
        self._at = Reached(epoch, 0, new_token())
        with translated():
            await self._write.execute(
                "INSERT INTO cursors (stream, partition, epoch, build, sequence, stream_sequence)"
                " VALUES ($1, $2, $3, $4, 0, 0)",
                *(self._source.stream, self._source.partition, epoch, self._at.build),
            )
        return self._at

    async def load(self, wanted: Mapping[str, Iterable[Key]]) -> Rows:
        """By table, the stored rows of these keys, of several the newest; None for what has none."""
        found: dict[str, dict[Key, Struct | None]] = {}
        async with self._reading:
            for name, keys in wanted.items():
                fold = self._folds[name]
                rows: dict[Key, Struct | None] = dict.fromkeys(keys)
                with translated():
                    stored = await self._read.fetch(self._loads[name], *_transposed(rows, fold.key_width))
                for record in stored:
                    rows[tuple([record[column] for column in fold.key_columns])] = fold.row(**dict(record))
                found[name] = rows
        return found

    async def commit(self, batch: Batch) -> None:
        """All of it or nothing.

        Raises Conflict when the cursor is not where the batch begins, or the tables were swapped; Malformed when
        Postgres cannot keep a value in it, Unavailable when it is not known whether it was written: then ask `reached`.
        """
        for name, records in batch.records.items():
            await self._days.ensure(self._write, self._tables[name], records)
        with translated():
            async with self._write.transaction():
                # First of all: whoever swaps the schema holds a lock on `cursors`, so that no transaction stands astride.
                done = await self._write.execute(
                    "UPDATE cursors SET sequence = $5, at = coalesce($6, at),"
                    " stream_sequence = greatest(stream_sequence, $5), stream_at = greatest(stream_at, $6)"
                    " WHERE stream = $1 AND epoch = $2 AND build = $3 AND sequence = $4",
                    *(self._source.stream, self._at.epoch, self._at.build, batch.before, batch.sequence, batch.at),
                )
                if done != "UPDATE 1":
                    raise Conflict(f"the views of {self._source.stream} are not at {batch.before} any more")
                await self._put(batch)

    async def put(self, batch: Batch) -> None:
        """Its rows and records, in a transaction of the caller's on the writing connection; the cursor stays.

        Raises Malformed, Unavailable.
        """
        for name, records in batch.records.items():
            await self._days.ensure(self._write, self._tables[name], records)
        with translated():
            await self._put(batch)

    async def _put(self, batch: Batch) -> None:
        for name, rows in batch.rows.items():
            if rows:
                await self._write.executemany(self._puts[name], map(_values, rows.values()))
        for name, records in batch.records.items():
            if records:
                await self._copy(self._tables[name], records)
        if batch.quarantined:
            await self._copy(tables.quarantine, list(batch.quarantined.values()))

    async def look(self, stream_sequence: int, stream_at: datetime | None) -> None:
        """Note where the stream ends now, for `reel.projection_lag`."""
        async with self._reading:
            with translated():
                await self._read.execute(
                    "UPDATE cursors SET stream_sequence = greatest($3, sequence), looked_at = clock_timestamp(),"
                    " stream_at = CASE WHEN $3 > sequence THEN coalesce($4, stream_at) ELSE at END"
                    " WHERE stream = $1 AND epoch = $2",
                    *(self._source.stream, self._at.epoch, stream_sequence, stream_at),
                )

    async def _copy(self, table: Table, records: list[Any]) -> None:
        try:
            await self._write.copy_records_to_table(table.name, columns=tables.columns(table), records=records)
        except (OverflowError, TypeError, ValueError) as error:  # COPY does not wrap what its encoders raise
            raise Malformed(f"Postgres cannot keep it: {table.name}: {error}") from error


def _upsert(table: Table) -> str:
    names, key = tables.columns(table), tables.key_of(table)
    rest = [f"{name} = EXCLUDED.{name}" for name in names if name not in key]
    return (
        f"INSERT INTO {table.name} ({', '.join(names)})"  # noqa: S608 - names of our own tables
        f" VALUES ({', '.join(f'${i}' for i in range(1, len(names) + 1))}) ON CONFLICT ({', '.join(key)})"
        f" {'DO UPDATE SET ' + ', '.join(rest) if rest else 'DO NOTHING'}"
    )


def _load(fold: Fold) -> str:
    """The rows of many keys, of each the newest."""
    key, rest = fold.key_columns, tables.key_of(fold.table)[fold.key_width :]
    arrays = [f"${i}::{_postgres_type(fold.table, name)}[]" for i, name in enumerate(key, 1)]
    order = ", ".join([*key, *(f"{name} DESC" for name in rest)])
    distinct = f"DISTINCT ON ({', '.join(key)}) " if rest else ""
    return (
        f"SELECT {distinct}{', '.join(tables.columns(fold.table))} FROM {fold.table.name}"  # noqa: S608 - our own
        f" WHERE ({', '.join(key)}) IN (SELECT * FROM unnest({', '.join(arrays)}))"
        f"{f' ORDER BY {order}' if rest else ''}"
    )


def _postgres_type(table: Table, column: str) -> str:
    kind = table.columns[column].type
    if isinstance(kind, ARRAY):
        raise TypeError(f"{table.name}.{column} is an array, and can be no part of a key")
    return _POSTGRES_TYPES[type(kind)]


def _transposed(keys: Iterable[Key], width: int) -> list[list[Any]]:
    return [[key[i] for key in keys] for i in range(width)]


def _values(row: Struct) -> tuple[Any, ...]:
    return tuple([getattr(row, name) for name in row.__struct_fields__])
