"""Many sessions at once, line by line: what is stored, then what comes, without a seam."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from msgspec import Struct

from sandreel_core.bus.execs import Gone, ManyItem, Recorded, Snapshot, read_execs
from sandreel_core.bus.port import Bus, CaughtUp, Missing
from sandreel_core.client.merge import Merge
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Envelope, Unknown
from sandreel_core.contract.subjects import EventSubject, parse_event_subject, reel
from sandreel_core.linewise import Line, Lines

# A line that has not ended is given out after so long, marked as what it is.
UNFINISHED_S = 1.0
_LOOK_UP_S = 0.2
# Whether a line is wanted, by its bytes without the newline.
Judge: TypeAlias = Callable[[bytes], bool]


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
    """All that was stored when the reading began has been given out; what follows is live."""


TailItem: TypeAlias = TailLine | TailEvent | TailGap | TailCaughtUp


async def tail(
    bus: Bus,
    filters: Mapping[int, Sequence[str]],
    *,
    after: Mapping[int, Cursor],
    snapshots: Mapping[int, Snapshot],
    judge: Judge | None = None,
    stream: x.Stream | None = None,
    events: bool = False,
    live: bool = True,
    unfinished_s: float = UNFINISHED_S,
    stop: asyncio.Event | None = None,
) -> AsyncGenerator[list[TailItem], None]:
    """Batches of items (never empty), in the order of the log for each partition, as they come between partitions.

    filters    subjects, by partition
    after      behind which cursor; a partition without one is read from its beginning
    snapshots  by partition: see `bus.execs.follow_execs`
    stop       ends it as the end of the log does
    A line is judged whole. One that has not ended is judged as far as it has come, and given out if it is wanted; its
    rest then follows whatever it holds. At the end all that has not ended is given out as it is, if it is wanted.
    """
    sources = [
        read_execs(bus, partition, each, after=after.get(partition), snapshot=snapshots.get(partition), live=live)
        for partition, each in filters.items()
    ]
    tailing = _Tailing(list(filters), judge, stream, events, unfinished_s)
    async with Merge(sources) as merge:
        while stop is None or not stop.is_set():
            try:
                found = await merge.next(_sooner(tailing.patience_s(), stop))
            except StopAsyncIteration:
                break
            items = tailing.overdue() if found is None else tailing.take(*found)
            if items:
                yield items
        if items := tailing.rest():
            yield items


def _sooner(patience_s: float | None, stop: asyncio.Event | None) -> float | None:
    """Who may be told to stop looks up now and then."""
    if stop is None:
        return patience_s
    return _LOOK_UP_S if patience_s is None else min(patience_s, _LOOK_UP_S)


class _Stream:
    """The lines of one stream of one exec. `shown`: the beginning of the line that goes on was given out."""

    __slots__ = ("cursor", "lines", "shown", "stored_ns", "where")

    def __init__(self, where: EventSubject) -> None:
        self.where = where
        self.lines = Lines()
        self.shown = False
        self.cursor: Cursor | None = None
        self.stored_ns = 0


class _Tailing:
    """What has come and was not given out. `_held` are the streams with a line that has not ended, oldest first."""

    def __init__(
        self, partitions: Sequence[int], judge: Judge | None, stream: x.Stream | None, events: bool, unfinished_s: float
    ) -> None:
        self._partitions = partitions
        self._judge = judge
        self._stream = stream
        self._events = events
        self._unfinished_s = unfinished_s
        self._behind = len(partitions)
        self._streams: dict[tuple[str, x.Stream], _Stream] = {}
        self._held: dict[tuple[str, x.Stream], _Stream] = {}
        self._loop = asyncio.get_running_loop()

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
            self._behind -= 1
            if not self._behind:
                items.append(TailCaughtUp())
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
                key: tuple[str, x.Stream] = (item.event.subject, stream)
                over = self._streams.pop(key, None)
                self._held.pop(key, None)
                if over is not None:
                    items += self._lines(over, stream, over.lines.release(ended=True))
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
        found.cursor, found.stored_ns = item.cursor, item.time_ns
        lines = found.lines.feed(data, block.line, self._loop.time())
        if lines:
            self._held.pop(key, None)  # what is held now has come later than what others hold
        if found.lines.held_since_s is not None:
            self._held.setdefault(key, found)
        return self._lines(found, block.stream, lines)

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
