"""The projector over the memory bus and a real Postgres: every event counts once, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest

from sandreel_core.bus.execs import Recorded, follow_execs
from sandreel_core.bus.memory import MemoryBus, MemoryServer
from sandreel_core.bus.port import Stream
from sandreel_core.contract import exec as x
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.embedded.postgres import PostgresServer
from sandreel_core.errors import Misconfigured, Unavailable
from sandreel_core.metrics import Metrics
from sandreel_projections import measures as m
from sandreel_projections.database import translated
from sandreel_projections.follower import Pace
from sandreel_projections.projector import Projector
from sandreel_projections.queries import places, snapshot
from sandreel_projections.registry import reel_source
from tests.support.script import Message, end, job, life, message

SUBJECTS = SessionSubjects("acme", "s1")
PACE = Pace(max_events=50, look_s=0.05)
CHUNKS: list[tuple[x.Stream, bytes]] = [
    ("stdout", b"one\ntw"),
    ("stderr", b"\xff\n"),
    ("stdout", b"o\n\0\n"),
    ("stdout", b"x"),
]


@pytest.fixture
async def bus() -> MemoryBus:
    return await new_bus("e1")


async def new_bus(epoch: str) -> MemoryBus:
    bus = MemoryBus(MemoryServer())
    await bus.ensure([Stream(name="REEL-0", subjects=("evt.0.>",), max_bytes=1 << 30, metadata={"epoch": epoch})])
    return bus


async def put(bus: MemoryBus, messages: list[Message]) -> int:
    last = 0
    for subject, body in messages:
        last = await bus.append(subject, body)
    return last


@asynccontextmanager
async def running(projector: Projector) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.ensure_future(projector.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def fetch(dsn: str, sql: str, *arguments: Any) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [dict(row) for row in await connection.fetch(sql, *arguments)]
    finally:
        await connection.close()


async def reached(projector: Projector, sequence: int) -> None:
    async with asyncio.timeout(20):
        while projector.reached < sequence:
            await asyncio.sleep(0.005)


async def everything(dsn: str) -> dict[str, list[dict[str, Any]]]:
    """All rows that a log leads to; without the clocks of whoever stored or looked."""
    return {
        "sessions": await fetch(dsn, "SELECT * FROM reel.sessions ORDER BY org, session, incarnation"),
        "execs": await fetch(dsn, "SELECT * FROM reel.execs ORDER BY org, session, exec"),
        "blocks": await fetch(dsn, "SELECT * FROM reel.exec_blocks ORDER BY sequence"),
        "quarantine": await fetch(dsn, "SELECT * FROM reel.quarantine ORDER BY sequence"),
        "outcomes": await fetch(dsn, "SELECT * FROM reel.command_outcomes ORDER BY org, session, command_id"),
        "events": await fetch(dsn, "SELECT * FROM reel.event_log ORDER BY sequence"),
        "exec_events": await fetch(dsn, "SELECT * FROM reel.exec_events ORDER BY org, session, exec, n"),
        "stages": await fetch(dsn, "SELECT * FROM reel.session_stages ORDER BY org, session, incarnation, number"),
        "ops": await fetch(dsn, "SELECT * FROM reel.ops ORDER BY org, session, turn"),
        "cursors": await fetch(dsn, "SELECT partition, epoch, sequence, at FROM reel.cursors WHERE stream <> 'CMD'"),
    }


async def test_sessions_and_execs_and_lines(bus: MemoryBus, database: str) -> None:
    last = await put(bus, life(SUBJECTS) + job(SUBJECTS, "e1", CHUNKS) + end(SUBJECTS) + life(SUBJECTS, 2))
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
        first, second = await fetch(database, "SELECT * FROM reel.sessions ORDER BY incarnation")
        assert (first["phase"], second["phase"], second["incarnation"]) == ("destroyed", "ready", 2)
        assert (first["owner_id"], first["requested_by"], first["fence"]) == ("u1", "ann", "none")
        assert (first["first_cursor"], first["last_cursor"]) == ("e1:0:1", f"e1:0:{last - 3}")
        [row] = await fetch(database, "SELECT * FROM reel.execs")
        assert (row["phase"], row["exit_code"], row["reason"], row["argv"]) == ("exited", 0, "exited", ["print"])
        assert (row["stdout_lines"], row["stdout_bytes"], row["stderr_lines"], row["stderr_bytes"]) == (3, 11, 1, 2)
        assert (row["command_id"], row["requested_by"], row["first_cursor"]) == ("c-1", "ann", "e1:0:4")
        lines = await fetch(
            database, "SELECT line, text, eol FROM reel.exec_lines WHERE stream = 'stdout' ORDER BY line"
        )
        assert [tuple(line.values()) for line in lines] == [
            (1, "one", True),
            (2, "two", True),
            (3, "\ufffd", True),
            (4, "x", False),
        ]


async def test_lag_is_zero_when_all_is_read_and_tells_when_it_is_not(bus: MemoryBus, database: str) -> None:
    last = await put(bus, life(SUBJECTS))
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
        row = await until(database, "SELECT * FROM reel.projection_lag", lambda row: row["looked_at"] is not None)
        assert (row["lag_events"], row["lag_s"], row["sequence"]) == (0, 0, last)
        assert row["looked_s_ago"] < 20
    await fetch(database, "UPDATE reel.cursors SET stream_sequence = 9, stream_at = at + interval '2.5 s'")
    [row] = await fetch(database, "SELECT * FROM reel.projection_lag")
    assert (row["lag_events"], row["lag_s"]) == (9 - last, 2.5)


async def until(dsn: str, sql: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            rows = await fetch(dsn, sql)
            if rows and holds(rows[0]):
                return rows[0]
            await asyncio.sleep(0.01)


async def test_repeats_and_pieces_behind_a_hole_change_nothing(bus: MemoryBus, database: str) -> None:
    good = job(SUBJECTS, "e1", CHUNKS)
    # go-back-N: 4 and 5 were stored behind a hole, then everything from 3 on came again, and the end twice.
    log = [*good[:2], good[3], good[4], *good[2:], good[-1], good[0]]
    last = await put(bus, log)
    projector = Projector(bus, database, reel_source(0), pace=Pace(max_events=1))
    async with running(projector):
        await reached(projector, last)
    blocks = await fetch(database, "SELECT n FROM reel.exec_blocks ORDER BY sequence")
    assert [row["n"] for row in blocks] == [3, 4, 5, 6]
    [row] = await fetch(database, "SELECT phase, last_n, gaps FROM reel.execs")
    assert row == {"phase": "exited", "last_n": 7, "gaps": 0}


async def test_gaps_and_an_archived_beginning_are_counted(bus: MemoryBus, database: str) -> None:
    gap = message(SUBJECTS, x.Gap(from_n=3, to_n=9, why="stream restored"), key="e1", n=10)
    tombstone = job(SUBJECTS, "old", CHUNKS)[-1]
    last = await put(bus, [*job(SUBJECTS, "e1", CHUNKS)[:2], gap, tombstone])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
    rows = await fetch(database, "SELECT exec, phase, gaps, missing_events, last_n FROM reel.execs ORDER BY exec")
    assert [tuple(row.values()) for row in rows] == [("e1", "running", 1, 7, 10), ("old", "exited", 0, 6, 7)]


async def test_what_nobody_can_digest_goes_to_quarantine(bus: MemoryBus, database: str) -> None:
    subject = SUBJECTS.exec("e1")
    good = job(SUBJECTS, "e1", CHUNKS)
    lying = message(SUBJECTS, x.Output(stream="stdout", line=1, count=7, text="a\n", eol=True), key="e1", n=3)
    unknown = good[3][1].replace(b'"exec.output"', b'"exec.from_the_future"')
    bad_data = good[4][1].replace(b'"count":2', b'"count":"x"')
    huge = message(SUBJECTS, x.Output(stream="stdout", line=2**63, count=0, text="a", eol=False), key="e1", n=6)
    assert bad_data != good[4][1]
    log = [*good[:2], (subject, b"\0 not json"), lying, (subject, unknown), (subject, bad_data), huge, good[-1]]
    last = await put(bus, [*log, *life(SUBJECTS)])
    metrics = Metrics()
    projector = Projector(bus, database, reel_source(0), pace=PACE, measures=m.ProjectionMeasures(metrics))
    async with running(projector):
        await reached(projector, last)
    assert metrics.counter(m.QUARANTINED).total() == 4
    assert metrics.counter(m.EVENTS).total() == last
    assert metrics.histogram(m.COMMIT_S).count == metrics.histogram(m.BATCH).count >= 1
    rows = await fetch(database, "SELECT cursor, body, reason, subject FROM reel.quarantine ORDER BY sequence")
    assert [(row["cursor"], row["body"]) for row in rows] == [
        ("e1:0:3", b"\0 not json"),
        ("e1:0:4", lying[1]),
        ("e1:0:6", bad_data),
        ("e1:0:7", huge[1]),
    ]
    [row] = await fetch(database, "SELECT phase, unreadable_events, last_n FROM reel.execs")
    assert row == {"phase": "exited", "unreadable_events": 4, "last_n": 7}
    assert len(await fetch(database, "SELECT FROM reel.sessions")) == 1
    [lag] = await fetch(database, "SELECT quarantined_events FROM reel.projection_lag")
    assert lag["quarantined_events"] == 4


async def test_an_event_of_an_exec_without_an_ordinal_is_in_quarantine(bus: MemoryBus, database: str) -> None:
    events = job(SUBJECTS, "e1", CHUNKS)
    subject, started = events[1]
    body = started.replace(b'"n":2,', b"")
    assert body != started
    last = await put(bus, [events[0], (subject, body)])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
    rows = await fetch(database, "SELECT sequence, reason FROM reel.quarantine")
    assert [tuple(row.values()) for row in rows] == [(2, "an event of an exec without an ordinal")]


async def test_a_value_that_the_database_refuses_stops_one_event_only(bus: MemoryBus, database: str) -> None:
    await fetch(
        database, "ALTER TABLE reel.execs ADD CONSTRAINT no_seven CHECK (pid IS DISTINCT FROM 7 OR exec <> 'bad')"
    )
    log = [*job(SUBJECTS, "a", CHUNKS), *job(SUBJECTS, "bad", CHUNKS), *job(SUBJECTS, "z", CHUNKS), *life(SUBJECTS)]
    last = await put(bus, log)
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
    rows = await fetch(
        database, "SELECT exec, phase, pid, unreadable_events, stdout_bytes FROM reel.execs ORDER BY exec"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("a", "exited", 7, 0, 11),
        ("bad", "exited", None, 1, 11),
        ("z", "exited", 7, 0, 11),
    ]
    [bad] = await fetch(database, "SELECT sequence, reason FROM reel.quarantine")
    assert bad["sequence"] == 9
    assert "no_seven" in bad["reason"]


def test_an_error_of_postgres_that_nobody_listed_is_tried_again() -> None:
    with pytest.raises(Unavailable, match="no room"), translated():
        raise asyncpg.PostgresSystemError("no room")


async def test_a_time_that_the_database_cannot_keep_stops_one_event_only(bus: MemoryBus, database: str) -> None:
    """COPY raises a bare OverflowError for it: it lies before the year 1 in UTC."""
    subject, body = life(SUBJECTS)[0]
    early = body.replace(b'"2026-11-24T03:00:00Z"', b'"0001-01-01T00:00:00+14:00"', 1)
    assert early != body
    last = await put(bus, [(subject, early), *life(SUBJECTS)])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
    [bad] = await fetch(database, "SELECT sequence, body FROM reel.quarantine")
    assert (bad["sequence"], bad["body"]) == (1, early)
    assert len(await fetch(database, "SELECT FROM reel.event_log")) == last - 1


async def test_a_second_projector_stands_by_and_takes_over(bus: MemoryBus, database: str) -> None:
    one, two = Projector(bus, database, reel_source(0), pace=PACE), Projector(bus, database, reel_source(0), pace=PACE)
    last = await put(bus, life(SUBJECTS))
    async with asyncio.timeout(20), running(one) as first:
        await reached(one, last)
        async with running(two):
            await two.standby.wait()
            assert not two.leading.is_set()
            first.cancel()
            await two.leading.wait()
            last = await put(bus, job(SUBJECTS, "e1", CHUNKS))
            await reached(two, last)
    assert len(await fetch(database, "SELECT FROM reel.exec_blocks")) == 4


async def test_a_writer_that_lost_its_place_writes_nothing(bus: MemoryBus, database: str) -> None:
    """Exactly once: the cursor is a fence. Somebody moves it under the projector, which then reads it again."""
    last = await put(bus, life(SUBJECTS))
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
        skipped = job(SUBJECTS, "skipped", CHUNKS)
        await fetch(database, f"UPDATE reel.cursors SET sequence = {last + len(skipped)}")
        last = await put(bus, skipped + job(SUBJECTS, "e1", CHUNKS))
        await reached(projector, last)
    assert [row["exec"] for row in await fetch(database, "SELECT exec FROM reel.execs")] == ["e1"]


@pytest.mark.parametrize("broken", ["older", "replaced"])
async def test_a_restored_stream_is_refused(bus: MemoryBus, database: str, broken: str) -> None:
    last = await put(bus, life(SUBJECTS) + job(SUBJECTS, "e1", CHUNKS))
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
    before = await everything(database)
    other = await new_bus("e1" if broken == "older" else "e2")
    await put(other, life(SUBJECTS) * (1 if broken == "older" else 9))
    with pytest.raises(Misconfigured, match="sandreel streams restore") as caught:
        async with asyncio.timeout(20):
            await Projector(other, database, reel_source(0), pace=PACE).run()
    assert "\n" not in str(caught.value)
    assert await everything(database) == before


async def test_postgres_killed_in_the_middle(
    bus: MemoryBus, database: str, postgres_server: PostgresServer, empty_database: str
) -> None:
    """Rows equal those of a projector that was never disturbed."""
    from sandreel_migrations.upgrade import upgrade

    projector = Projector(bus, database, reel_source(0), pace=Pace(max_events=7, look_s=0.05))
    last = 0
    async with running(projector):
        for i in range(60):
            last = await put(bus, job(SUBJECTS, f"e{i}", CHUNKS))
            if i in (20, 40):
                await reached(projector, last // 2)
                await postgres_server.kill()
                await put(bus, job(SUBJECTS, f"while-away-{i}", CHUNKS))
                await postgres_server.start()
        await reached(projector, last)
    disturbed = await everything(database)
    await upgrade(empty_database, wait_s=10)
    calm = Projector(bus, empty_database, reel_source(0))
    async with running(calm):
        await reached(calm, last)
    assert disturbed == await everything(empty_database)
    assert len(disturbed["blocks"]) == 62 * 4


async def test_snapshot_names_the_next_ordinal_of_what_runs(bus: MemoryBus, database: str) -> None:
    assert await snapshot(database, 0) is None
    assert await places(database) == []
    last = await put(bus, job(SUBJECTS, "done", CHUNKS) + job(SUBJECTS, "runs", CHUNKS)[:4])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
    found = await snapshot(database, 0)
    assert await places(database) == [found.cursor if found else None]
    assert found is not None
    assert str(found.cursor) == f"e1:0:{last}"
    assert found.next_n == {SUBJECTS.exec("runs"): 5, SUBJECTS.exec("done"): 8}
    assert found.ended == {SUBJECTS.exec("done")}
    rest = job(SUBJECTS, "runs", CHUNKS)
    await put(bus, [*rest[3:], *job(SUBJECTS, "done", CHUNKS)])
    reader = follow_execs(bus, 0, ["evt.0.>"], after=found.cursor, snapshot=found, live=False)
    taken = [(item.event.subject, item.event.n) async for item in reader if isinstance(item, Recorded)]
    assert taken == [(SUBJECTS.exec("runs"), n) for n in (5, 6, 7)]


async def test_nats_away_and_back(bus: MemoryBus, database: str) -> None:
    last = await put(bus, life(SUBJECTS))
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
        bus.server.crash()
        bus.server.start()
        last = await put(bus, job(SUBJECTS, "e1", CHUNKS))
        await reached(projector, last)
    assert len(await fetch(database, "SELECT FROM reel.exec_blocks")) == 4
