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

from sandreel_core.bus.exec_places import MAX_REMEMBERED, Gone, OnPassed, OnSkipped, Places, Recorded
from sandreel_core.bus.port import Bus, CaughtUp, Missing, StreamState
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.subjects import SessionSubjects, reel
from sandreel_core.errors import Malformed
from sandreel_core.ordinals import Ordinals

__all__ = [
    "MAX_REMEMBERED",
    "ExecItem",
    "Gone",
    "ManyItem",
    "OnPassed",
    "OnRead",
    "OnSkipped",
    "Recorded",
    "Snapshot",
    "follow_exec",
    "follow_execs",
    "read_execs",
]

# Messages that are decoded at once: of more, the bodies that have come and what is decoded of them would both be held.
_DECODED = 256


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
# Called with the sequence up to which everything that matches has been handed out, or passed over.
OnRead = Callable[[int], None]


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
    places = Places(bus, stream, subjects.partition, state.epoch, on_skipped)
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
) -> AsyncGenerator[ManyItem, None]:
    """The events behind the cursor of everything in a partition that matches the filters, execs and others.

    snapshot  where the execs stand. At P ≤ the cursor C: it is read from P, silently up to C. At P > C: `next_n` and
              `ended` must be those by the blocks up to C. Without one, an exec that is first met in its middle is read
              from its own beginning, silently.
    Raises Malformed for cursors of another epoch or partition or behind the stream's end, NotFound when there is no such stream.
    """
    batches = read_execs(
        bus, partition, filters, after=after, snapshot=snapshot, live=live, on_skipped=on_skipped, on_read=on_read
    )
    async with aclosing(batches):
        async for batch in batches:
            for item in batch:
                yield item


async def read_execs(
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
) -> AsyncGenerator[Sequence[ManyItem], None]:
    """As `follow_execs`, in batches as they come (never empty): for those who read much at once."""
    stream = reel(partition)
    state = await bus.state(stream)
    silent_until = start = _place(after, state, partition)
    places = Places(bus, stream, partition, state.epoch, on_skipped, on_passed)
    if snapshot is not None:
        start = min(start, _place(snapshot.cursor, state, partition))
        for subject, next_n in snapshot.next_n.items():
            places.remember(subject, Ordinals(next_n - 1, subject in snapshot.ended))
    async with aclosing(bus.follow(stream, filters, after=start, live=live)) as items:
        async for item in items:
            if isinstance(item, list):
                for some in (item[i : i + _DECODED] for i in range(0, len(item), _DECODED)):
                    if taken := await places.take_all(some, silent_until):
                        yield taken
                if on_read is not None:
                    on_read(item[-1].sequence)
            elif isinstance(item, CaughtUp):
                yield [item]
            elif item.to_sequence > silent_until:
                yield [Missing(max(item.from_sequence, silent_until + 1), item.to_sequence)]


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
