"""How the views are: how far behind, who writes them, what is in quarantine, what rebuilds have left."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct

from sandreel_core.bus.port import Bus, StreamState
from sandreel_core.errors import NotFound
from sandreel_projections import schemas
from sandreel_projections.change import instant
from sandreel_projections.database import Connection, connected, translated
from sandreel_projections.schemas import FRESH, Old
from sandreel_projections.source import Source
from sandreel_projections.swap import live_cursors
from sandreel_projections.tables import SCHEMA
from sandreel_projections.unfinished import LOCK as REBUILD_LOCK
from sandreel_projections.writer import LOCK, WRITES, Reached, lock_key

# Reasons that are told of each stream, the most frequent first; `quarantine ls` tells of every event.
_REASONS = 5

# `classid` and `objid` are the two keys of an advisory lock (`objsubid` 2), or the halves of its only one (1).
_PROJECTORS = """
SELECT a.pid, a.application_name, host(a.client_addr) AS address, a.backend_start,
       EXISTS (SELECT FROM pg_locks AS l
               WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
                 AND l.classid::bigint = $2 AND l.objid::bigint = $3) AS leads
FROM pg_stat_activity AS a
WHERE a.datname = current_database() AND starts_with(a.application_name, $1)
ORDER BY a.backend_start"""
_REBUILDER = """
SELECT a.pid, a.application_name, host(a.client_addr) AS address, a.backend_start
FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.classid = 0 AND l.objid::bigint = $1
  AND a.datname = current_database()"""
_QUARANTINED = """
SELECT reason, count(*) AS events, (array_agg(cursor ORDER BY sequence DESC))[1] AS newest_cursor
FROM reel.quarantine WHERE stream = $1 GROUP BY reason ORDER BY count(*) DESC, reason"""


class Process(Struct, frozen=True, kw_only=True):
    """A projector as Postgres knows it.

    process          its number and host, as it says itself
    address          where its connection comes from; empty for a local socket
    connected_since  of its connection: it may have become the leader later
    """

    process: str
    address: str
    connected_since: datetime
    backend_pid: int


class Reason(Struct, frozen=True, kw_only=True):
    reason: str
    events: int
    newest_cursor: str


class StreamStatus(Struct, frozen=True, kw_only=True):
    """One stream and its views.

    lag_events          at most: events that were purged since are counted
    lag_bytes_estimate  those events at the stream's mean size
    lag_s               between the newest event in the views and the newest in the stream, by the server's timestamps
    problem             why the views stand still, where that can be told; else empty
    """

    stream: str
    epoch: str
    sequence: int | None
    stream_sequence: int
    lag_events: int
    lag_bytes_estimate: int
    lag_s: float
    leader: Process | None
    standbys: list[Process]
    quarantined: int
    reasons: list[Reason]
    problem: str = ""


class RebuildStatus(Struct, frozen=True, kw_only=True):
    """`running` tells who is at it; None: it was interrupted, and the same command goes on."""

    schema: str
    begun_at: datetime | None
    tables: list[str]
    reached: dict[str, int]
    running: Process | None


class Status(Struct, frozen=True, kw_only=True):
    streams: list[StreamStatus]
    rebuild: RebuildStatus | None
    old: list[Old]


async def status(bus: Bus, dsn: str, sources: tuple[Source, ...]) -> Status:
    """Raises Unavailable, Misconfigured."""
    async with connected(dsn, "status") as connection:
        cursors = await live_cursors(connection)
        has_quarantine = "quarantine" in await schemas.columns_of(connection, SCHEMA)
        found = []
        for source in sources:
            reasons = await _reasons(connection, source) if has_quarantine else []
            found.append(await _stream(bus, connection, source, cursors.get(source.stream), reasons))
        return Status(streams=found, rebuild=await _rebuild(connection), old=await schemas.old_schemas(connection))


async def _stream(
    bus: Bus, connection: Connection, source: Source, reached: Reached | None, reasons: list[Reason]
) -> StreamStatus:
    leader, standbys = await _processes(connection, source)
    try:
        state = await bus.state(source.stream)
    except NotFound:
        state = StreamState(source.stream, "", 0, 0, 0, 0, 0)
    sequence = 0 if reached is None else reached.sequence
    behind = max(0, state.last_sequence - max(sequence, state.first_sequence - 1))
    share = min(1.0, behind / max(1, state.last_sequence - state.first_sequence + 1))
    return StreamStatus(
        stream=source.stream,
        epoch=state.epoch,
        sequence=None if reached is None else sequence,
        stream_sequence=state.last_sequence,
        lag_events=behind,
        lag_bytes_estimate=round(state.bytes * share),
        lag_s=await _lag_s(bus, source, reached) if behind else 0.0,
        leader=leader,
        standbys=standbys,
        quarantined=sum(reason.events for reason in reasons),
        reasons=reasons[:_REASONS],
        problem=_problem(state, reached, leader),
    )


async def _lag_s(bus: Bus, source: Source, reached: Reached | None) -> float:
    last = await bus.last(source.stream, source.filters[0])
    if last is None:
        return 0.0
    since = reached.at if reached is not None and reached.at is not None else None
    if since is None:  # nothing was read yet
        first = await bus.get(source.stream, (await bus.state(source.stream)).first_sequence)
        since = instant(last.time_ns if first is None else first.time_ns)
    return max(0.0, round((instant(last.time_ns) - since).total_seconds(), 3))


def _problem(state: StreamState, reached: Reached | None, leader: Process | None) -> str:
    if reached is not None and reached.epoch != state.epoch:
        return f"the views were made from epoch {reached.epoch}, the stream is {state.epoch}: `sandreel projections rebuild --accept-uncompared`"
    if reached is not None and reached.sequence > state.last_sequence:
        return f"the stream ends before what the views have read: `sandreel streams restore {state.name}`"
    return "" if leader is not None else "no projector writes them"


async def _processes(connection: Connection, source: Source) -> tuple[Process | None, list[Process]]:
    head = f"sandreel {WRITES} {source.stream} "
    with translated():
        rows = await connection.fetch(_PROJECTORS, head, LOCK, lock_key(SCHEMA, source.stream) & 0xFFFFFFFF)
    leaders = [_process(row, head) for row in rows if row["leads"]]
    return next(iter(leaders), None), [_process(row, head) for row in rows if not row["leads"]]


def _process(row: Any, head: str) -> Process:
    return Process(
        process=row["application_name"].removeprefix(head),
        address=row["address"] or "",
        connected_since=row["backend_start"],
        backend_pid=row["pid"],
    )


async def _reasons(connection: Connection, source: Source) -> list[Reason]:
    with translated():
        rows = await connection.fetch(_QUARANTINED, source.stream)
    return [Reason(**dict(row)) for row in rows]


async def _rebuild(connection: Connection) -> RebuildStatus | None:
    if not await schemas.exists(connection, FRESH):
        return None
    mark = await schemas.mark_of(connection)
    with translated():
        row = await connection.fetchrow(_REBUILDER, REBUILD_LOCK)
    return RebuildStatus(
        schema=FRESH,
        begun_at=None if mark is None else mark.begun_at,
        tables=[] if mark is None else mark.tables,
        reached={stream: reached.sequence for stream, reached in (await live_cursors(connection, FRESH)).items()},
        running=None if row is None else _process(row, "sandreel rebuild "),
    )
