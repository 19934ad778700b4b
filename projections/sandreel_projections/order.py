"""What is asked of a rebuild, what comes of it, and which tables are meant. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sandreel_core.bus.port import StreamState
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.subjects import reel
from sandreel_core.errors import Malformed, Misconfigured
from sandreel_projections.compare import Comparison
from sandreel_projections.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """views    names of views or tables; none: all
    to       stop there, and swap nothing
    archive  where archived execs are; None: there are none
    accept_differences  swap also when rows differ from the live ones
    accept_uncompared   swap also where live rows could not be compared: their stream was restored or replaced
    patience_s  how long servers that are away are waited for
    """

    views: tuple[str, ...] = ()
    to: Cursor | None = None
    compare_only: bool = False
    accept_differences: bool = False
    accept_uncompared: bool = False
    archive: Path | None = None
    patience_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Uncompared:
    """A live table with rows, and why they are not compared with the rebuilt ones."""

    table: str
    why: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """compared  one for each table that was; why not, where none was
    swapped      the schema that the old tables are in now, empty when there were none; None: nothing was swapped
    uncompared   live tables whose rows nobody could compare
    only_live, only_rebuilt  events that only the live views have in quarantine, and only the rebuilt ones
    """

    compared: list[Comparison]
    not_compared: str
    swapped: str | None
    uncompared: list[Uncompared] = field(default_factory=list)
    only_live: int = 0
    only_rebuilt: int = 0

    @property
    def differing(self) -> int:
        return sum(each.differing for each in self.compared)


def check_place(to: Cursor | None, states: Mapping[str, StreamState]) -> None:
    """Raises Malformed for a cursor that is none of these streams'."""
    if to is None:
        return
    state = states.get(reel(to.partition))
    if state is None:
        raise Malformed(f"--to {to}: there is no partition {to.partition}")
    to.check(state.epoch)
    if to.sequence > state.last_sequence:
        raise Malformed(f"--to {to}: {state.name} ends at {state.last_sequence}")


def units(source: Source) -> list[set[str]]:
    """Tables that are written by one fold or append: they are rebuilt together."""
    folds = [{table.name for table in (fold.table, fold.records) if table is not None} for fold in source.folds]
    return [*folds, *({append.table.name} for append in source.appends)]


def selected(source: Source, names: Sequence[str]) -> Source:
    """The source with only what writes these tables; no names: all of it."""
    if not names:
        return source
    return replace(
        source,
        folds=tuple(fold for fold in source.folds if fold.table.name in names),
        appends=tuple(append for append in source.appends if append.table.name in names),
    )


def made_of(sources: Sequence[Source], views: Sequence[str], behind: set[str]) -> list[str]:
    """The tables that are rebuilt for these views, which read the tables `behind`. Raises Misconfigured for none."""
    all_units = [unit for source in sources for unit in units(source)]
    chosen = sorted({str(name) for unit in all_units if unit & behind for name in unit})
    if not chosen:
        known = ", ".join(sorted({name for unit in all_units for name in unit}))
        raise Misconfigured(f"--view: {', '.join(views)} is not made from the log; {known} are")
    return chosen
