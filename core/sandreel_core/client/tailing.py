"""What a reader of many execs gives out, line by line, of what comes: no reading is done here."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from msgspec import Struct

from sandreel_core.bus.execs import Gone, ManyItem, Recorded
from sandreel_core.bus.port import CaughtUp, Missing
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Envelope, Unknown
from sandreel_core.contract.subjects import EventSubject, parse_event_subject, reel
from sandreel_core.linewise import Line, Lines

# Whether a line is wanted, by its bytes without the newline.
Judge: TypeAlias = Callable[[bytes], bool]
# A stream of an exec, by its subject.
Key: TypeAlias = tuple[str, x.Stream]


class TailLine(Struct, frozen=True):
    """A line of an exec, or a piece of one (`line.begun`, `line.ended`). `cursor` and `stored_ns` are those of the block
    that ended it, or that brought its newest byte."""

    where: EventSubject
    stream: x.Stream
    line: Line
    cursor: Cursor
    stored_ns: int


@dataclass(frozen=True, slots=True)
class TailEvent:
    """Any event that is no output."""

    where: EventSubject
    event: Envelope
    cursor: Cursor
    stored_ns: int


@dataclass(frozen=True, slots=True)
class TailGap:
    """What belongs here cannot be had. `where` is None when it is not known whose it was."""

    where: EventSubject | None
    why: str


@dataclass(frozen=True, slots=True)
class TailCaughtUp:
    """All that was stored when the reading began has been given out; what follows is live. `cursors` are where that is,
    one of each partition."""

    cursors: tuple[Cursor, ...]


TailItem: TypeAlias = TailLine | TailEvent | TailGap | TailCaughtUp


class _Stream:
    """The lines of one stream of one exec. `shown`: the beginning of the line that goes on was given out."""

    __slots__ = ("cursor", "lines", "shown", "stored_ns", "where")

    def __init__(self, where: EventSubject) -> None:
        self.where = where
        self.lines = Lines()
        self.shown = False
        self.cursor: Cursor | None = None
        self.stored_ns = 0


class Tailing:
    """What has come and was not given out. `_held` are the streams with a line that has not ended, oldest first.

    after       behind which cursor each partition is read
    open_lines  the streams that were in the middle of a line at some place up to there; `passed` tells what came since
    The others are those of `History.tail`.
    """

    def __init__(
        self,
        after: Mapping[int, Cursor],
        *,
        open_lines: Mapping[Key, int],
        judge: Judge | None,
        stream: x.Stream | None,
        events: bool,
        unfinished_s: float,
    ) -> None:
        self.after = after
        self._partitions = list(after)
        self._open = dict(open_lines)
        self._caught_up: list[Cursor] = []
        self._judge = judge
        self._stream = stream
        self._events = events
        self._unfinished_s = unfinished_s
        self._streams: dict[Key, _Stream] = {}
        self._held: dict[Key, _Stream] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def _behind(self) -> bool:
        return len(self._caught_up) < len(self._partitions)

    def passed(self, event: Envelope) -> None:
        """An event of before the place where the reading begins."""
        block = event.data
        if isinstance(block, x.Output):
            self._open.pop((event.subject, block.stream), None)
            if not block.eol:
                self._open[event.subject, block.stream] = block.line + block.count
        elif isinstance(block, x.Exited | x.Lost):
            self._over(event.subject)

    def patience_s(self) -> float | None:
        """How long to wait before a line that has not ended is given out."""
        if self._behind or not self._held:
            return None
        oldest = next(iter(self._held.values())).lines.held_since_s or 0.0
        return max(0.0, oldest + self._unfinished_s - self._loop.time())

    def take(self, source: int, batch: Sequence[ManyItem]) -> list[TailItem]:
        items: list[TailItem] = []
        for item in batch:
            items += self._recorded(item) if isinstance(item, Recorded) else self._other(source, item)
        if not self._behind and self._held:
            items += self.overdue()
        return items

    def _other(self, source: int, item: ManyItem) -> list[TailItem]:
        items: list[TailItem] = []
        if isinstance(item, Gone):
            since = item.from_n if item.from_n is not None else "?"
            why = f"events {since} to {item.to_n} are not in the stream any more: they were archived"
            items.append(TailGap(parse_event_subject(item.subject), why))
        elif isinstance(item, Missing):
            name = reel(self._partitions[source])
            items.append(
                TailGap(None, f"{name} does not hold sequences {item.from_sequence} to {item.to_sequence} any more")
            )
        elif isinstance(item, CaughtUp):
            after = self.after[self._partitions[source]]
            self._caught_up.append(Cursor(after.epoch, after.partition, max(item.sequence, after.sequence)))
            if not self._behind:
                items.append(TailCaughtUp(tuple(self._caught_up)))
        return items

    def overdue(self) -> list[TailItem]:
        """The lines that have been waited for long enough."""
        items: list[TailItem] = []
        now_s = self._loop.time()
        for key, held in list(self._held.items()):
            if (held.lines.held_since_s or 0.0) + self._unfinished_s > now_s:
                break
            piece = held.lines.held
            del self._held[key]
            if piece is None or not (held.shown or self._judge is None or self._judge(piece.data)):
                # Not wanted so far: it may be with what is still to come, or after another while.
                held.lines.held_since_s = now_s
                self._held[key] = held
            else:
                items += self._lines(held, key[1], held.lines.release())
        return items

    def rest(self) -> list[TailItem]:
        """All that is held, of lines that have not ended."""
        held, self._held = self._held, {}
        return [item for key, each in held.items() for item in self._lines(each, key[1], each.lines.release())]

    def _recorded(self, item: Recorded) -> list[TailItem]:
        where = parse_event_subject(item.event.subject)
        data = item.event.data
        if isinstance(data, x.Output):
            return self._output(where, data, item)
        items: list[TailItem] = []
        if isinstance(data, x.Exited | x.Lost):
            for stream in ("stdout", "stderr"):
                key: Key = (item.event.subject, stream)
                over = self._streams.pop(key, None)
                self._held.pop(key, None)
                if over is not None:
                    items += self._lines(over, stream, over.lines.release(ended=True))
            self._over(item.event.subject)
        if (why := _missing(item.event)) is not None:
            items.append(TailGap(where, why))
        if self._events:
            items.append(TailEvent(where, item.event, item.cursor, item.time_ns))
        return items

    def _output(self, where: EventSubject, block: x.Output, item: Recorded) -> list[TailItem]:
        if self._stream is not None and block.stream != self._stream:
            return []
        try:
            data = b64decode(block.base64, validate=True) if block.base64 else (block.text or "").encode()
        except ValueError:
            return [TailGap(where, f"output event {item.event.n} cannot be read: its base64 is damaged")]
        key = (item.event.subject, block.stream)
        found = self._streams.get(key)
        if found is None:
            found = self._streams[key] = _Stream(where)
            if self._open.pop(key, None) == block.line:
                found.lines.goes_on(block.line)
        found.cursor, found.stored_ns = item.cursor, item.time_ns
        lines = found.lines.feed(data, block.line, self._loop.time())
        if lines:
            self._held.pop(key, None)  # what is held now has come later than what others hold
        if found.lines.held_since_s is not None:
            self._held.setdefault(key, found)
        return self._lines(found, block.stream, lines)

    def _over(self, subject: str) -> None:
        self._open.pop((subject, "stdout"), None)
        self._open.pop((subject, "stderr"), None)

    def _lines(self, found: _Stream, stream: x.Stream, lines: Sequence[Line]) -> list[TailItem]:
        judge, where, cursor, stored_ns = self._judge, found.where, found.cursor, found.stored_ns
        items: list[TailItem] = []
        if cursor is None:
            return items
        for line in lines:
            wanted = found.shown or judge is None or judge(line.data)
            found.shown = wanted and not line.ended
            if wanted:
                items.append(TailLine(where, stream, line, cursor, stored_ns))
        return items


def _missing(event: Envelope) -> str | None:
    """What may not go unsaid."""
    match event.data:
        case x.Gap() as gap:
            return f"events {gap.from_n} to {gap.to_n} will never come: {gap.why}"
        case x.Truncated() as cut:
            return f"{cut.stream} was cut at {cut.limit_bytes} bytes, as asked"
        case Unknown(raw_type=x.Output.type) as unknown:
            return f"output event {event.n} cannot be read by this version: {unknown.problem}"
    return None
