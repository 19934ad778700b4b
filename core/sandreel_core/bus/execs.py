"""The readers of execs (design §3): every viewer, bridge and projector takes their events through these lines.

They hand out exactly what was recorded, each event once, in order: repeats and pieces behind a hole, which
go-back-N leaves in the log, are passed over (`ordinals.py`). Only cursors of events that were handed out are handed
out. What the stream does not have any more is said (`Gone`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from sandreel_core.bus.port import Bus, CaughtUp, Missing, Stored, StreamState
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.exec import Exited, Gap, Lost
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.subjects import SessionSubjects, parse_event_subject, reel
from sandreel_core.errors import Malformed
from sandreel_core.log import Log
from sandreel_core.ordinals import Ordinals

# A reader of many remembers the place of this many execs; of more, the longest ended are looked up again
# should they ever be met again. About 30 MB.
MAX_REMEMBERED = 65_536


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event that was taken. `time_ns` is the server's timestamp, `size` the length of the stored body."""

    event: Envelope
    cursor: Cursor
    time_ns: int
    size: int


@dataclass(frozen=True, slots=True)
class Gone:
    """The stream has these events of an exec no more (they were archived). `from_n` is None when how far
    the reader had come is not known either."""

    subject: str
    from_n: int | None
    to_n: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where each exec stood at `cursor`, read in one transaction from the views.

    next_n  by subject: the ordinal that comes next
    ended   subjects of execs that had ended
    open    by subject and stream: the line, by its number, that had begun and not ended
    """

    cursor: Cursor
    next_n: Mapping[str, int]
    ended: frozenset[str] = field(default_factory=frozenset)
    open: Mapping[tuple[str, Literal["stdout", "stderr"]], int] = field(default_factory=dict)


ExecItem = Recorded | Gone | CaughtUp
ManyItem = Recorded | Gone | Missing | CaughtUp
OnSkipped = Callable[[Stored, Malformed], None]
# Called with the sequence up to which everything that matches has been handed out, or passed over.
OnRead = Callable[[int], None]
# Called with each event of an exec that lies before the cursor and was read to know the place there.
OnPassed = Callable[[Envelope], None]


async def follow_exec(
    bus: Bus,
    subjects: SessionSubjects,
    exec_id: str,
    *,
    after: Cursor | None = None,
    live: bool = True,
    until_end: bool = True,
    on_skipped: OnSkipped | None = None,
) -> AsyncGenerator[ExecItem, None]:
    """One exec's events behind the cursor: what is stored, one CaughtUp, then live ones. Close it (`aclosing`).

    live       go on behind CaughtUp
    until_end  return behind the event that ends the exec: without CaughtUp when it was stored already, with nothing but
               CaughtUp when `after` is its cursor
    Raises Malformed for a cursor of another epoch or partition or behind the stream's end, and when the stream is restored
    while it is read; NotFound when there is no such stream.
    """
    subject, stream = subjects.exec(exec_id), subjects.stream
    state = await bus.state(stream)
    start = silent_until = _place(after, state, subjects.partition)
    places = _Places(bus, stream, subjects.partition, state.epoch, on_skipped)
    if start:
        stored = await bus.get(stream, start)
        ordinals = None if stored is None else places.at(stored, subject)
        if ordinals is not None:
            places.remember(subject, ordinals)
        else:
            # It is not of this exec, or is gone, and then it is not known whose it was: the exec may have ended
            # before it. So read from its beginning, silently up to there.
            start = 0
            if stored is None:
                places.unknown.add(subject)
    if until_end and places.has_ended(subject):
        yield CaughtUp(start)
        return
    async with aclosing(bus.follow(stream, [subject], after=start, live=live)) as items:
        async for item in items:
            if isinstance(item, CaughtUp):
                yield item
            if not isinstance(item, list):
                continue  # what is missing of one exec is told by its ordinals
            for stored in item:
                for taken in await places.take(stored, silent_until):
                    yield taken
            if until_end and places.has_ended(subject):
                return


async def follow_execs(
    bus: Bus,
    partition: int,
    filters: Sequence[str],
    *,
    after: Cursor | None = None,
    snapshot: Snapshot | None = None,
    live: bool = True,
    on_skipped: OnSkipped | None = None,
    on_read: OnRead | None = None,
    on_passed: OnPassed | None = None,
) -> AsyncGenerator[ManyItem, None]:
    """The events behind the cursor of everything in a partition that matches the filters, execs and others.

    snapshot  where the execs stand. At P ≤ the cursor C: it is read from P, silently up to C. At P > C: `next_n` and
              `ended` must be those by the blocks up to C. Without one, an exec that is first met in its middle is read
              from its own beginning, silently.
    Raises Malformed for cursors of another epoch or partition or behind the stream's end, NotFound when there is no such stream.
    """
    stream = reel(partition)
    state = await bus.state(stream)
    silent_until = start = _place(after, state, partition)
    places = _Places(bus, stream, partition, state.epoch, on_skipped, on_passed)
    if snapshot is not None:
        start = min(start, _place(snapshot.cursor, state, partition))
        for subject, next_n in snapshot.next_n.items():
            places.remember(subject, Ordinals(next_n - 1, subject in snapshot.ended))
    async with aclosing(bus.follow(stream, filters, after=start, live=live)) as items:
        async for item in items:
            if isinstance(item, list):
                for stored in item:
                    for taken in await places.take(stored, silent_until):
                        yield taken
                if on_read is not None:
                    on_read(item[-1].sequence)
            elif isinstance(item, CaughtUp):
                yield item
            elif item.to_sequence > silent_until:
                yield Missing(max(item.from_sequence, silent_until + 1), item.to_sequence)


class _Places:
    """The reader's place in every exec that it has met."""

    def __init__(
        self,
        bus: Bus,
        stream: str,
        partition: int,
        epoch: str,
        on_skipped: OnSkipped | None,
        on_passed: OnPassed | None = None,
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._partition = partition
        self._epoch = epoch
        self._on_skipped = on_skipped
        self._on_passed = on_passed
        self._ordinals: dict[str, Ordinals] = {}
        self._log = Log("execs")
        # Subjects whose event at the cursor is gone, so that it is not known which ordinal comes next.
        self.unknown: set[str] = set()

    def remember(self, subject: str, ordinals: Ordinals) -> None:
        self._ordinals[subject] = ordinals
        if len(self._ordinals) > MAX_REMEMBERED:
            ended = [subject for subject, kept in self._ordinals.items() if kept.ended]
            for old in ended[: max(1, len(ended) // 2)]:
                del self._ordinals[old]

    def has_ended(self, subject: str) -> bool:
        ordinals = self._ordinals.get(subject)
        return ordinals is not None and ordinals.ended

    def at(self, stored: Stored, subject: str) -> Ordinals | None:
        """The place of a reader whose last event this was; None when it is no event of the subject."""
        event = self._decode(stored) if stored.subject == subject else None
        if event is None or event.n is None:
            return None
        return Ordinals(event.n, isinstance(event.data, Exited | Lost))

    async def take(self, stored: Stored, silent_until: int) -> list[Recorded | Gone]:
        """What to hand out for one stored message: nothing, the event, or what is gone and the event."""
        event = self._decode(stored)
        if event is None:
            return []
        items: list[Recorded | Gone] = []
        loud = stored.sequence > silent_until
        if event.n is not None or parse_event_subject(stored.subject).aggregate == "exec":
            ordinals = self._ordinals.get(stored.subject)
            if ordinals is None:
                ordinals, gone = await self._first_met(stored, event)
                self.remember(stored.subject, ordinals)
                if gone is not None and loud:
                    items.append(gone)
            if self._is_cut_off(ordinals, event):
                if loud:
                    items.append(Gone(stored.subject, ordinals.last + 1, (event.n or 1) - 1))
                ordinals.last = (event.n or 1) - 1
            if not ordinals.accept(event):
                return items
            if not loud and self._on_passed is not None:
                self._on_passed(event)
        if loud:
            cursor = Cursor(self._epoch, self._partition, stored.sequence)
            items.append(Recorded(event, cursor, stored.time_ns, len(stored.body)))
        return items

    def _is_cut_off(self, ordinals: Ordinals, event: Envelope) -> bool:
        """The end is published alone, after all before it is stored. A reader that meets it and lacks something
        was overtaken by the archive: what it lacks does not come again."""
        ends = isinstance(event.data, Exited | Lost) and not ordinals.ended
        return ends and event.n is not None and event.n > ordinals.last + 1

    async def _first_met(self, stored: Stored, event: Envelope) -> tuple[Ordinals, Gone | None]:
        """The place in an exec just before its event that is met first."""
        subject, n = stored.subject, event.n or 1
        if n == 1 or (isinstance(event.data, Gap) and event.data.from_n == 1):
            return Ordinals(), None
        if subject in self.unknown:
            self.unknown.discard(subject)
            return Ordinals(n - 1), Gone(subject, None, n - 1)
        before = await self._before(stored)
        return (before, None) if before is not None else (Ordinals(n - 1), Gone(subject, 1, n - 1))

    async def _before(self, stored: Stored) -> Ordinals | None:
        """The place by what the stream holds of the exec before this message; None when that is nothing."""
        ordinals: Ordinals | None = None
        async with aclosing(self._bus.follow(self._stream, [stored.subject], live=False)) as items:
            async for item in items:
                for earlier in item if isinstance(item, list) else ():
                    if earlier.sequence >= stored.sequence:
                        return ordinals
                    before = self._decode(earlier)
                    if before is None or before.n is None:
                        continue
                    if ordinals is None:
                        cut = before.n > 1 and not isinstance(before.data, Gap)
                        ordinals = Ordinals(before.n - 1 if cut else 0)
                    if ordinals.accept(before) and self._on_passed is not None:
                        self._on_passed(before)
        return ordinals

    def _decode(self, stored: Stored) -> Envelope | None:
        try:
            return decode_event(stored.subject, stored.body)
        except Malformed as error:
            self._log.warning("a stored body is no event", subject=stored.subject, sequence=stored.sequence)
            if self._on_skipped is not None:
                self._on_skipped(stored, error)
            return None


def _place(cursor: Cursor | None, state: StreamState, partition: int) -> int:
    if cursor is None:
        return 0
    if cursor.partition != partition:
        raise Malformed(f"cursor {cursor} belongs to partition {cursor.partition}, not to {partition}")
    sequence = cursor.check(state.epoch)
    if sequence > state.last_sequence:
        raise Malformed(
            f"cursor {cursor} is behind the end of {state.name}, {state.last_sequence}: a stream that comes from a "
            "backup must be brought back with `sandreel streams restore`"
        )
    return sequence
