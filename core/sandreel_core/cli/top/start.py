"""Where the screen's reader of a partition begins, so that it need not read the whole log."""

from __future__ import annotations

from contextlib import aclosing

from sandreel_core.bus.execs import Recorded, Snapshot
from sandreel_core.bus.kept import kept
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.cli.snapshots import snapshot
from sandreel_core.cli.top.board import MAX_EXECS, Board
from sandreel_core.client import Client
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.subjects import EventSubject, reel
from sandreel_core.errors import Malformed

# Views that are further behind than this many events help less than reading each exec from its own beginning.
_MAX_SILENT = 200_000


async def begin(bus: Bus, board: Board, partition: int, org: str, dsn: str | None) -> tuple[Cursor, Snapshot | None]:
    """Fold every session up to now; where to follow from. `org` may be `*`. Raises NotFound, Unavailable."""
    found = await snapshot(dsn, partition)
    state = await bus.state(reel(partition))
    cursor = Cursor(state.epoch, partition, state.last_sequence)
    async with kept(bus, state.name, [f"evt.{partition}.{org}.*.session"]) as messages:
        async for stored in messages:
            recorded = _recorded(stored, state.epoch, partition)
            if recorded is not None and stored.sequence <= cursor.sequence:
                board.take(recorded)
    if found is not None and (
        found.cursor.epoch != cursor.epoch or not 0 <= cursor.sequence - found.cursor.sequence <= _MAX_SILENT
    ):
        found = None
    return cursor, found


async def meet_execs(client: Client, board: Board) -> None:
    """Put the execs of every session that runs on the board, by their newest events: those that go on first, then those that
    were heard of last. Raises Unavailable."""
    for org, session in board.sessions_running():
        subjects = client.subjects(org, session)
        found = sorted(await client.execs(org, session), key=lambda info: (info.ended is None, info.cursor.sequence))
        for info in reversed(found[-MAX_EXECS:]):
            stored = await client.bus.get(subjects.stream, info.cursor.sequence)
            last = None if stored is None else _recorded(stored, info.cursor.epoch, subjects.partition)
            if last is not None:
                where = EventSubject(subjects.partition, org, session, "exec", info.exec_id)
                accepted_ns = await _first_ns(client.bus, where) if info.ended is None else None
                board.meet(where, last, info.phase, info.ended, accepted_ns)


async def _first_ns(bus: Bus, where: EventSubject) -> int | None:
    """When the first event that the stream still has of an exec was stored."""
    async with aclosing(bus.follow(reel(where.partition), [str(where)], live=False)) as items:
        async for item in items:
            if isinstance(item, list):
                return item[0].time_ns
    return None


def _recorded(stored: Stored, epoch: str, partition: int) -> Recorded | None:
    try:
        event = decode_event(stored.subject, stored.body)
    except Malformed:
        return None
    return Recorded(event, Cursor(epoch, partition, stored.sequence), stored.time_ns, len(stored.body))
