"""The streams, consumers and feeds of the memory twin: what a server keeps when its clients come and go."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from sandreel_core.bus.port import Stored, Stream, StreamState, Work, ancestors_of, partitions_of
from sandreel_core.bus.wake import Signal
from sandreel_core.contract.subjects import matches
from sandreel_core.errors import AlreadyExists, Conflict, Full, Misconfigured, NotFound


def matches_any(filters: Sequence[str], subject: str) -> bool:
    return not filters or any(matches(filter, subject) for filter in filters)


class MemoryStream:
    """One stream. Sequences count from 1 and are never given twice."""

    def __init__(self, config: Stream) -> None:
        self.config = config
        self.last_sequence = 0
        self.messages: dict[int, Stored] = {}  # in the order of sequences
        self.bytes = 0
        self._subjects: dict[str, list[int]] = {}
        self._ids: dict[str, tuple[int, float]] = {}

    @property
    def first_sequence(self) -> int:
        return next(iter(self.messages), self.last_sequence + 1)

    def state(self) -> StreamState:
        return StreamState(
            name=self.config.name,
            epoch=self.config.metadata.get("epoch", ""),
            first_sequence=self.first_sequence,
            last_sequence=self.last_sequence,
            messages=len(self.messages),
            bytes=self.bytes,
            max_bytes=self.config.max_bytes,
            partitions=partitions_of(self.config.metadata),
            ancestors=ancestors_of(self.config.metadata),
        )

    def append(self, subject: str, body: bytes, expected: int | None, message_id: str | None) -> int:
        self._expire()
        if message_id is not None and message_id in self._ids:
            return self._ids[message_id][0]
        held = self._subjects.get(subject, [])
        last = held[-1] if held else 0
        if expected is not None and expected != last:
            raise Conflict(f"the last sequence of {subject} is {last}, not {expected}", last)
        if self.config.per_subject and len(held) >= self.config.per_subject and self.config.discard_new_per_subject:
            raise AlreadyExists(f"{self.config.name} keeps {self.config.per_subject} message(s) of {subject}")
        size = _size(subject, body)
        if 0 < self.config.max_bytes < self.bytes + size:
            raise Full(f"stream {self.config.name} has met its limit of {self.config.max_bytes} bytes")
        self.last_sequence += 1
        self.messages[self.last_sequence] = Stored(subject, self.last_sequence, body, time.time_ns())
        self._subjects.setdefault(subject, []).append(self.last_sequence)
        self.bytes += size
        if message_id is not None:
            self._ids[message_id] = (self.last_sequence, time.monotonic())
        while self.config.per_subject and len(self._subjects[subject]) > self.config.per_subject:
            self.remove(self._subjects[subject][0])
        return self.last_sequence

    def append_all(self, subject: str, bodies: Sequence[bytes], expected: int) -> int:
        """All of them, or none."""
        if len(bodies) > 1 and not self.config.batches:
            raise Misconfigured(f"stream {self.config.name} takes no batches")
        more = sum(_size(subject, body) for body in bodies)
        if 0 < self.config.max_bytes < self.bytes + more:
            raise Full(f"stream {self.config.name} has met its limit of {self.config.max_bytes} bytes")
        for body in bodies:
            expected = self.append(subject, body, expected, None)
        return expected

    def remove(self, sequence: int) -> None:
        stored = self.messages.pop(sequence)
        self.bytes -= _size(stored.subject, stored.body)
        held = self._subjects[stored.subject]
        held.remove(sequence)
        if not held:
            del self._subjects[stored.subject]

    def after(self, sequence: int, filters: Sequence[str]) -> Iterator[Stored]:
        """What matches behind a sequence, oldest first. Nothing may be stored while this is read."""
        sequences = list(self.messages)
        for number in sequences[bisect_right(sequences, sequence) :]:
            stored = self.messages[number]
            if matches_any(filters, stored.subject):
                yield stored

    def last(self, subject: str) -> Stored | None:
        newest = max((held[-1] for name, held in self._subjects.items() if matches(subject, name)), default=0)
        return self.messages.get(newest)

    def subjects(self, filter: str) -> dict[str, int]:
        return {name: len(held) for name, held in self._subjects.items() if matches(filter, name)}

    def purge(self, subject: str, keep: int, up_to: int | None) -> int:
        gone = [stored.sequence for stored in self.after(0, [subject])]
        gone = gone[: len(gone) - keep] if keep else gone
        gone = [sequence for sequence in gone if up_to is None or sequence < up_to]
        for sequence in gone:
            self.remove(sequence)
        return len(gone)

    def _expire(self) -> None:
        now = time.monotonic()
        for message_id, (_, at) in list(self._ids.items()):
            if now - at <= self.config.duplicate_window_s:
                break
            del self._ids[message_id]
        if self.config.max_age_s:
            oldest = time.time_ns() - int(self.config.max_age_s * 1e9)
            for sequence in [s.sequence for s in self.messages.values() if s.time_ns < oldest]:
                self.remove(sequence)


@dataclass
class Consumer:
    """The state of a durable consumer. Times are of the monotonic clock."""

    work: Work
    position: int = 0
    pending: dict[int, float] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)

    def take(self, stream: MemoryStream, now: float) -> tuple[Stored, int] | None:
        for sequence, due in list(self.pending.items()):
            if sequence not in stream.messages:
                self.done(sequence)
            elif due <= now:
                return self._give(stream.messages[sequence], now)
        if len(self.pending) >= self.work.max_ack_pending:
            return None
        for stored in stream.after(self.position, self.work.filters):
            self.position = stored.sequence
            return self._give(stored, now)
        return None

    def next_due_s(self, now: float) -> float | None:
        return max(0.0, min(self.pending.values()) - now) if self.pending else None

    def done(self, sequence: int) -> None:
        self.pending.pop(sequence, None)
        self.attempts.pop(sequence, None)

    def again(self, sequence: int, due: float) -> None:
        if sequence in self.pending:
            self.pending[sequence] = due

    def _give(self, stored: Stored, now: float) -> tuple[Stored, int]:
        self.pending[stored.sequence] = now + self.work.ack_wait_s
        self.attempts[stored.sequence] = self.attempts.get(stored.sequence, 0) + 1
        return stored, self.attempts[stored.sequence]


@dataclass
class Feed:
    filters: tuple[str, ...]
    position: int


class MemoryStreams:
    """All that is stored. `changed` fires with every message and every change."""

    def __init__(self) -> None:
        self.streams: dict[str, MemoryStream] = {}
        self.consumers: dict[tuple[str, str], Consumer] = {}
        self.feeds: dict[tuple[str, str], Feed] = {}
        self.changed = Signal()

    def stream(self, name: str) -> MemoryStream:
        if name not in self.streams:
            raise NotFound(f"there is no stream {name}")
        return self.streams[name]

    def stream_for(self, subject: str) -> MemoryStream | None:
        return next((s for s in self.streams.values() if matches_any(s.config.subjects, subject)), None)

    def ensure(self, stream: Stream) -> None:
        found = self.streams.get(stream.name)
        if found is None:
            self.streams[stream.name] = MemoryStream(stream)
            return
        if found.config.memory != stream.memory:
            raise Misconfigured(f"stream {stream.name} cannot change its storage: delete it or keep its settings")
        found.config = replace(stream, metadata=stream.metadata | found.config.metadata)

    def consumer(self, work: Work) -> Consumer:
        """Made if it is not there."""
        self.stream(work.stream)
        consumer = self.consumers.setdefault((work.stream, work.name), Consumer(work))
        consumer.work = work
        return consumer


def _size(subject: str, body: bytes) -> int:
    # What NATS' memory store counts: 16 bytes beside subject and body.
    return len(subject) + len(body) + 16
