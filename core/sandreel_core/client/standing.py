"""How sessions and execs stood at a moment: the log folded up to there, and told where it holds something no more.

Of a long exec only the beginning is read and what stands just before the moment: most of a log need not be read at all. What
it had printed is said by its end, or by the last `exec.progress` before.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from sandreel_core.as_of import AsOf, SessionAt
from sandreel_core.bus.execs import Gone, Recorded, read_execs
from sandreel_core.bus.kept import kept
from sandreel_core.bus.port import Bus, CaughtUp, Missing, Stored
from sandreel_core.client.moment import Moment, place
from sandreel_core.client.sessions import end_of
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.exec import PROGRESS_BLOCKS, Exited, Lost, Output, Progress, Started
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.subjects import parse_event_subject, reel
from sandreel_core.errors import Malformed

T = TypeVar("T")
# From this many messages on it is quicker to look at an exec's beginning and end than to read it.
_LONG = 128
# How far before its end the last lines are looked for, in messages of the whole stream; then the exec is read whole.
_LOOKS_BACK = (32, 1024)
# The same of an exec that goes on: as far as the last `exec.progress`, which tells what an end would.
_LOOKS_BACK_RUNNING = tuple(PROGRESS_BLOCKS * times + 64 for times in (1, 4, 16, 256))
# Of the exec's own messages no more than the newest are held, of a quarter of a MiB each where it prints much: those since its
# last `exec.progress`, some 64 MiB.
_MAX_TAIL = 4 * PROGRESS_BLOCKS
_TRIES = 3
# Execs that are looked at one by one, so many at a time; and of so many what is held of them.
_AT_ONCE, _HELD_AT_ONCE = 16, 4
# Subjects that one reader may name; beyond it everything is read, long or not.
_MAX_FILTERS = 512


@dataclass(frozen=True, slots=True)
class StateAt:
    """What the log said at the cursors, one for each partition that was read.

    missing  sentences about what the streams do not hold any more and that may have belonged here
    """

    cursors: tuple[Cursor, ...]
    sessions: tuple[SessionAt, ...]
    missing: tuple[str, ...]


async def fold(
    bus: Bus, partitions: range, org: str, session: str | None, at: Moment | None, last_lines: int
) -> StateAt:
    """Raises what `moment.place` does."""
    cursors, sessions, missing = [], [], []
    for partition in partitions:
        cursor = await place(bus, partition, at)
        reading = _Reading(bus, cursor, f"evt.{partition}.{org}.{session or '*'}", last_lines)
        missing += await reading.read()
        cursors.append(cursor)
        sessions += reading.as_of.sessions()
    return StateAt(tuple(cursors), tuple(sessions), tuple(missing))


class _Reading:
    """One partition up to one cursor."""

    def __init__(self, bus: Bus, cursor: Cursor, prefix: str, last_lines: int) -> None:
        self._bus = bus
        self._stream = reel(cursor.partition)
        self._cursor = cursor
        self._prefix = prefix
        self._last_lines = last_lines
        self._room = asyncio.Semaphore(_HELD_AT_ONCE)
        self.as_of = AsOf(last_lines)

    async def read(self) -> list[str]:
        """Fold it all; sentences about what is missing of the stream."""
        execs = await self._bus.subjects(self._stream, f"{self._prefix}.exec.*")
        long = [subject for subject, count in execs.items() if count >= _LONG]
        told = await _each(long, lambda subject: self._tell_long(subject, execs[subject]))
        others = [f"{self._prefix}.session", f"{self._prefix}.workspace"]
        short = [subject for subject in execs if subject not in told]
        filters = [*others, *short] if len(short) <= _MAX_FILTERS else [*others, f"{self._prefix}.exec.*"]
        missing = await self._read(filters, told)
        await _each(
            [subject for subject in short if not self.as_of.met(parse_event_subject(subject))], self._tell_archived
        )
        return missing

    async def _read(self, filters: Sequence[str], told: frozenset[str]) -> list[str]:
        missing: list[str] = []
        gone: Gone | None = None  # stands before the event that showed it, and with it before or behind the cursor
        async with aclosing(read_execs(self._bus, self._cursor.partition, filters, live=False)) as batches:
            async for batch in batches:
                for item in batch:
                    if isinstance(item, Recorded):
                        if item.cursor.sequence > self._cursor.sequence:
                            return missing
                        if item.event.subject not in told:
                            where = parse_event_subject(item.event.subject)
                            if gone is not None:
                                self.as_of.lacks(where, _sentence(gone), begun=True)
                            self.as_of.take(where, item.event, item.cursor.sequence, item.time_ns)
                        gone = None
                    elif isinstance(item, Gone):
                        gone = item
                    elif isinstance(item, Missing) and item.from_sequence <= self._cursor.sequence:
                        until = min(item.to_sequence, self._cursor.sequence)
                        missing.append(
                            f"{self._stream} does not hold sequences {item.from_sequence} to {until} any more"
                        )
                    elif isinstance(item, CaughtUp):
                        return missing
        return missing

    async def _tell_long(self, subject: str, count: int) -> bool:
        """Whether the exec could be told by its beginning and by what stands just before the cursor."""
        clean = await self._clean(subject, count)
        if clean is None:
            return False
        last, newest = clean
        accepted = await self._bus.next(self._stream, subject)
        started = await self._bus.next(self._stream, subject, after=accepted.sequence) if accepted else None
        until = min(last.sequence, self._cursor.sequence)
        if accepted is None or started is None or started.sequence >= until:
            return False
        first = [event for stored in (accepted, started) if (event := _event(stored)) is not None]
        if any(_says_more_in_between(event) for event in first):
            return False
        end = newest if until == last.sequence and isinstance(newest, Exited) else None
        async with self._room:
            return await self._tell_its_end(subject, first, end, (accepted.time_ns, started.sequence, until))

    async def _tell_its_end(
        self, subject: str, first: list[Envelope], end: Exited | None, places: tuple[int, int, int]
    ) -> bool:
        """places: when it was accepted, the sequence of its start, and up to where it counts."""
        accepted_ns, started, until = places
        for back in _LOOKS_BACK if end is not None else _LOOKS_BACK_RUNNING:
            tail = await self._behind(subject, max(started, until - back), until)
            whole = back >= until - started and len(tail) < _MAX_TAIL
            printed = end.lines if end is not None else _printed(tail)
            lines = Counter[str]()
            for event, _, _ in tail:
                if isinstance(event.data, Output):
                    lines[event.data.stream] += event.data.count
            enough = printed is not None and all(
                lines[stream] > self._last_lines or lines[stream] >= printed.get(stream, 0)
                for stream in ("stdout", "stderr")
            )
            if enough or whole:
                self.as_of.take_long(parse_event_subject(subject), first, tail, accepted_ns)
                return True
        return False

    async def _clean(self, subject: str, count: int) -> tuple[Stored, object] | None:
        """The exec's newest message and what it says, where all of them are sure to be the events that count, one after
        the other: the n-th is then the n-th of n messages, or the tombstone that the archive left. While it prints that
        can only be seen between two messages."""
        for _ in range(_TRIES):
            last = await self._bus.last(self._stream, subject)
            event = _event(last) if last is not None else None
            if last is None or event is None or isinstance(event.data, Lost):
                return None
            if isinstance(end_of(last, count), Exited) or event.n == count:
                return last, event.data
            if isinstance(event.data, Exited) or (event.n or 0) < count:
                return None
            count = (await self._bus.subjects(self._stream, subject)).get(subject, 0)
        return None

    async def _behind(self, subject: str, after: int, until: int) -> Sequence[tuple[Envelope, int, int]]:
        """(event, sequence, time) of what the exec's log holds behind a sequence, up to another: the newest of that."""
        found: deque[tuple[Envelope, int, int]] = deque(maxlen=_MAX_TAIL)
        async with kept(self._bus, self._stream, [subject], after=after) as messages:
            async for stored in messages:
                if stored.sequence > until:
                    return found
                if (event := _event(stored)) is not None:
                    found.append((event, stored.sequence, stored.time_ns))
        return found

    async def _tell_archived(self, subject: str) -> bool:
        """Of an exec that ended behind the cursor and was archived only its end is left: whether it had begun by then
        is not known, and that is said."""
        first = await self._bus.next(self._stream, subject)
        event = _event(first) if first is not None else None
        if first is None or event is None or event.n == 1 or not isinstance(event.data, Exited | Lost):
            return False
        self.as_of.lacks(
            parse_event_subject(subject),
            f"it was archived since: its end stands at sequence {first.sequence}, and whether it had begun by then is "
            "not in the stream any more",
            begun=False,
        )
        return True


def _printed(tail: Sequence[tuple[Envelope, int, int]]) -> Counter[str] | None:
    """How many lines of each stream there had been at its end; None where nothing in it tells."""
    lines: Counter[str] | None = None
    for event, _, _ in tail:
        if isinstance(event.data, Progress):
            lines = Counter(event.data.lines)
        elif isinstance(event.data, Output) and lines is not None:
            lines[event.data.stream] += event.data.count
    return lines


def _says_more_in_between(event: Envelope) -> bool:
    """Whether what counts may stand in the middle of its log: another size of its terminal, a stream that was cut."""
    data = event.data
    limited = isinstance(data, Started) and (data.stdout_max_bytes is not None or data.stderr_max_bytes is not None)
    return limited or (isinstance(data, Started) and data.tty is not None)


async def _each(subjects: Sequence[str], look: Callable[[str], Awaitable[bool]]) -> frozenset[str]:
    """Those of which `look` says yes; a few at a time."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def looked(subject: str) -> bool:
        async with limit:
            return await look(subject)

    answers = await asyncio.gather(*(looked(subject) for subject in subjects))
    return frozenset(subject for subject, yes in zip(subjects, answers, strict=True) if yes)


def _sentence(gone: Gone) -> str:
    since = gone.from_n if gone.from_n is not None else "?"
    return f"events {since} to {gone.to_n} are not in the stream any more: they were archived"


def _event(stored: Stored) -> Envelope | None:
    try:
        return decode_event(stored.subject, stored.body)
    except Malformed:
        return None
