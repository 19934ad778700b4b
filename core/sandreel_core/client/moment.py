"""A place in the log as people name it, a cursor, one of each partition, or a time, as the sequence of a partition's
stream."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from sandreel_core.bus.port import Bus
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.cursors import Cursors
from sandreel_core.contract.subjects import reel
from sandreel_core.errors import Malformed, NotFound

# A cursor: up to its event. A time: up to what the stream's server had stored by then.
Moment: TypeAlias = Cursor | Cursors | datetime
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def nanoseconds(at: datetime) -> int:
    """Since 1970, up to the end of its microsecond: what was stored at a time that we printed is included."""
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000 + 999


async def place(bus: Bus, partition: int, moment: Moment | None) -> Cursor:
    """The cursor of one partition at a moment; None is now, and so is a time to come.

    A cursor of another partition stands for the time at which its event was stored.
    Raises Malformed for cursors of which none is of the partition, and for one that is of another epoch, behind the stream's end, or whose event is gone when its
    time is what is needed; NotFound when the installation has no such partition; Unavailable.
    """
    stream = reel(partition)
    state = await bus.state(stream)
    if moment is None:
        return Cursor(state.epoch, partition, state.last_sequence)
    if isinstance(moment, datetime):
        return Cursor(state.epoch, partition, await bus.sequence_at(stream, nanoseconds(moment)))
    if isinstance(moment, Cursors):
        moment = moment.of(partition)
    if moment.partition != partition:
        return Cursor(state.epoch, partition, await bus.sequence_at(stream, await time_of(bus, moment)))
    if moment.check(state.epoch) > state.last_sequence:
        raise Malformed(f"cursor {moment} is behind the end of {stream}, {state.last_sequence}")
    return moment


async def time_of(bus: Bus, cursor: Cursor | Cursors) -> int:
    """The server's time, nanoseconds, at which the cursor's event was stored, of several the last; 0 for a cursor before
    the first.

    Raises Malformed when the event is gone or the cursor is of another epoch or of a partition that the installation
    does not have, Unavailable.
    """
    if isinstance(cursor, Cursors):
        return max([await time_of(bus, each) for each in cursor.each])
    stream = reel(cursor.partition)
    try:
        state = await bus.state(stream)
    except NotFound as error:
        raise Malformed(f"cursor {cursor} is of no partition of this installation: it has no {stream}") from error
    cursor.check(state.epoch)
    if cursor.sequence == 0:
        return 0
    stored = await bus.get(stream, cursor.sequence)
    if stored is None:
        raise Malformed(
            f"the event at cursor {cursor} is not in {stream} (any more), so its time is not known: give a time"
        )
    return stored.time_ns
