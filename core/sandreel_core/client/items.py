"""What a viewer of an exec is given, one after another. `cursor` is where to go on from after this item."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Envelope, Unknown


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of the exec, with its place in the log. `stored_ns` is the server's clock, nanoseconds since 1970."""

    cursor: Cursor
    stored_ns: int
    event: Envelope

    @property
    def n(self) -> int:
        """Its ordinal in the exec, from 1."""
        return self.event.n or 0

    @property
    def stored_at(self) -> datetime:
        return datetime.fromtimestamp(self.stored_ns / 1e9, UTC)


@dataclass(frozen=True, slots=True)
class Output(Entry):
    """A block of output, byte for byte. `line` is the number (from 1, per stream) of the line that holds its
    first byte, `count` the newlines in it, `eol` whether it ends with one."""

    stream: x.Stream
    data: bytes
    line: int
    count: int
    eol: bool

    @property
    def text(self) -> str:
        """For eyes: what is not UTF-8 is replaced."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Ended(Entry):
    """The end, once; nothing follows it. `exit_code` is None on a signal, when it never started, and when it is lost."""

    @property
    def exited(self) -> x.Exited | None:
        return self.event.data if isinstance(self.event.data, x.Exited) else None

    @property
    def lost(self) -> x.Lost | None:
        """Its recorder died: how it ended is not known, and is not made up."""
        return self.event.data if isinstance(self.event.data, x.Lost) else None

    @property
    def exit_code(self) -> int | None:
        return self.exited.exit_code if self.exited else None


@dataclass(frozen=True, slots=True)
class Changed(Entry):
    """Any other event: accepted, started, signalled, truncated, gap, …; `event.data` says which."""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything that was stored when the reading began has been seen; what follows is live."""

    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Gap:
    """What belongs here cannot be had: it was archived or purged, or this version cannot read it."""

    cursor: Cursor
    why: str


ExecItem: TypeAlias = Output | Ended | Changed | CaughtUp | Gap


def entry(cursor: Cursor, stored_ns: int, event: Envelope) -> Output | Ended | Changed | Gap:
    """The typed item for one accepted event of an exec; a Gap for output that cannot be read."""
    data = event.data
    if isinstance(data, x.Output):
        try:
            block = base64.b64decode(data.base64, validate=True) if data.base64 else (data.text or "").encode()
        except ValueError:
            return Gap(cursor, f"output event {event.n} cannot be read: its base64 is damaged")
        return Output(cursor, stored_ns, event, data.stream, block, data.line, data.count, data.eol)
    if isinstance(data, x.Exited | x.Lost):
        return Ended(cursor, stored_ns, event)
    if isinstance(data, Unknown) and data.raw_type == x.Output.type:
        return Gap(cursor, f"output event {event.n} cannot be read by this version: {data.problem}")
    return Changed(cursor, stored_ns, event)
