"""What analysts ask: every command and event is there once, with its outcome, its time and its place."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.clock import new_id
from sandreel_core.contract import exec as x
from sandreel_core.contract.subjects import CMD, SessionSubjects
from sandreel_projections.follower import Pace
from sandreel_projections.projector import Projector
from sandreel_projections.registry import sources
from tests.projections.test_projector import fetch, running, until
from tests.support.script import message
from tests.support.story import LINES, Story, tell

PACE = Pace(max_events=7, look_s=0.05)


async def project(bus: MemoryBus, dsn: str) -> None:
    """Until the views have read everything that is in the streams now."""
    ends = {source.stream: (await bus.state(source.stream)).last_sequence for source in sources(1)}
    async with AsyncExitStack() as stack:
        projectors = [Projector(bus, dsn, source, pace=PACE) for source in sources(1)]
        for projector in projectors:
            await stack.enter_async_context(running(projector))
        async with asyncio.timeout(30):
            for projector, end in zip(projectors, ends.values(), strict=True):
                while projector.reached < end:
                    await asyncio.sleep(0.005)


@pytest.fixture
async def told(database: str) -> Story:
    bus, [story] = await tell("acme")
    await project(bus, database)
    return story


async def command(dsn: str, told: Story, name: str) -> dict[str, Any]:
    [row] = await fetch(dsn, "SELECT * FROM reel.commands WHERE command_id = $1", told.commands[name])
    return row


async def test_every_command_has_its_one_outcome(told: Story, database: str) -> None:
    rows = await fetch(database, "SELECT command_id, type, outcome, event_type, code FROM reel.commands")
    by_id = {row.pop("command_id"): tuple(row.values()) for row in rows}
    assert {name: by_id[command_id] for name, command_id in told.commands.items()} == {
        "create": ("session.create", "done", "session.requested", None),
        "start": ("exec.start", "done", "exec.accepted", None),
        "turn": ("turn.start", "done", "turn.requested", None),
        "grant": ("credential.grant", "done", "credential.granted", None),
        "pin": ("session.pin", "done", "session.pinned", None),
        "again": ("session.pin", "settled", "command.settled", None),
        "resume": ("session.resume", "refused", "command.refused", "SESSION_NOT_STOPPED"),
        "destroy": ("session.destroy", "done", "session.destroying", None),
        "bad": ("session.create", "done", "session.requested", None),
        "pending": ("session.destroy", "pending", None, None),
    }
    assert len(rows) == len(told.commands)
    row = await command(database, told, "destroy")
    assert (row["actor"], row["source"], row["role"]) == ("eve", "/client/eve@laptop", "spawner")
    assert timedelta(milliseconds=row["duration_ms"]) == row["outcome_at"] - row["stored_at"]
    assert (await command(database, told, "start"))["aggregate_id"] == "x-1"


async def test_law_6_the_audit_views_hold_no_variable_and_nothing_typed(told: Story, database: str) -> None:
    row = await command(database, told, "create")
    assert msgspec.json.decode(row["data"])["env"] == ["TOKEN"]
    row = await command(database, told, "start")
    assert msgspec.json.decode(row["data"])["stdin_text_chars"] == len("typed-text")
    everything = await fetch(database, "SELECT data::text AS said FROM reel.audit_log")
    assert len(everything) > 20
    assert not [
        row for row in everything if "value-of-a-variable" in (row["said"] or "") or "typed" in (row["said"] or "")
    ]


async def test_a_command_that_the_stream_has_forgotten_shows_what_its_outcome_knows(told: Story, database: str) -> None:
    await told.bus.purge(CMD, f"cmd.spawner.acme.demo.{told.commands['destroy']}")
    await fetch(database, "DELETE FROM reel.command_log")
    rows = await fetch(database, "SELECT * FROM reel.commands ORDER BY outcome_at")
    assert len(rows) == len(told.commands) - 1, "a pending one is not known any more"
    [row] = [row for row in rows if row["command_id"] == told.commands["destroy"]]
    assert (row["outcome"], row["event_type"], row["actor"]) == ("done", "session.destroying", "ann")
    assert (row["type"], row["source"], row["stored_at"], row["duration_ms"]) == (None, None, None, None)
    assert abs((row["sent_at"] - row["outcome_at"]).total_seconds()) < 60, "the time that its id was made from"


async def test_the_audit_log_has_everything_once(told: Story, database: str) -> None:
    [counts] = await fetch(
        database,
        "SELECT count(*) FILTER (WHERE kind = 'command') AS commands, count(*) FILTER (WHERE kind = 'event') AS events,"
        " count(DISTINCT cursor) FILTER (WHERE kind = 'event') AS places,"
        " count(*) FILTER (WHERE type = 'exec.output') AS blocks FROM reel.audit_log",
    )
    events = told.last["REEL-0"]
    assert counts == {"commands": len(told.commands), "events": events, "places": events, "blocks": LINES // 100}
    [block] = await fetch(database, "SELECT * FROM reel.audit_log WHERE type = 'exec.output' AND n = 3")
    assert (block["actor"], block["caused_by"], block["aggregate_id"]) == ("ann", told.commands["start"], "x-1")
    assert msgspec.json.decode(block["data"])["count"] == 100
    [exited] = await fetch(database, "SELECT * FROM reel.audit_log WHERE type = 'exec.exited'")
    assert (exited["duration_ms"], exited["cursor"].startswith("e1:0:")) == (12, True)


async def test_repeats_of_an_execs_event_count_once_and_a_late_end_is_kept(told: Story, database: str) -> None:
    end = message(
        SessionSubjects("acme", "demo"), x.Exited(exit_code=1, reason="exited", duration_ms=12), key="x-1", n=15
    )
    late = message(SessionSubjects("acme", "demo"), x.Signalled(signal="SIGTERM", why="asked"), key="x-1", n=16)
    for each in (end, end, late):
        await told.bus.append(*each)
    await project(told.bus, database)
    rows = await fetch(database, "SELECT n, type FROM reel.exec_events ORDER BY n")
    assert [(row["n"], row["type"]) for row in rows] == [
        (1, "exec.accepted"),
        (2, "exec.started"),
        (15, "exec.exited"),
        (16, "exec.signalled"),
    ]


@pytest.mark.parametrize(
    "data", [{"a\0": ["\0", "\\u0000"]}, {"deep": 10**30}, {"text": "x" * 50_000}, [1], "text", None]
)
async def test_types_that_are_not_known_are_kept(told: Story, database: str, data: Any) -> None:
    subject = SessionSubjects("acme", "demo").event("workspace")
    body = {"specversion": "1.0", "id": "i", "source": "/s", "subject": subject, "time": "2030-01-01T00:00:00", "type": "workspace.dreamt", "data": data}  # fmt: skip
    await told.bus.append(subject, msgspec.json.encode(body))
    await project(told.bus, database)
    [row] = await fetch(database, "SELECT * FROM reel.audit_log WHERE type = 'workspace.dreamt'")
    assert row["kind"] == "event"
    assert row["message"], "it says what was not understood"
    kept = None if row["data"] is None else msgspec.json.decode(row["data"])
    if isinstance(data, dict) and "text" in data:
        assert kept == {"text": "x" * 1024 + "…[+48976]"}
    elif isinstance(data, dict) and "deep" not in data:
        assert kept == {"a\ufffd": ["\ufffd", "\\u0000"]}
    else:
        assert kept == data
    assert await fetch(database, "SELECT * FROM reel.quarantine") == []


async def test_data_that_cannot_be_read_stops_nothing(told: Story, database: str) -> None:
    subject = SessionSubjects("acme", "demo").event("workspace")
    nested = b"[" * 20_000 + b"]" * 20_000
    for data in (nested, b"1e999", b'"\\ud800"'):
        head = b'{"specversion":"1.0","id":"i","source":"/s","subject":"%s","time":"2030-01-01T00:00:00Z","type":"file.dreamt","data":'
        await told.bus.append(subject, head % subject.encode() + data + b"}")
    await project(told.bus, database)
    rows = await fetch(database, "SELECT data FROM reel.audit_log WHERE type = 'file.dreamt'")
    seen = await fetch(database, "SELECT * FROM reel.quarantine")
    assert len(rows) + len(seen) == 3
    assert all(row["data"] is None for row in rows)


async def test_commands_that_are_not_in_order_are_kept_without_what_they_say(told: Story, database: str) -> None:
    for body in (
        b"nonsense",
        b'{"type":"session.crate","actor":"ann","time":"2030-01-01T00:00:00","data":{"p":"hidden"}}',
    ):
        await told.bus.append(f"cmd.spawner.acme.odd.{new_id()}", body)
    await project(told.bus, database)
    rows = await fetch(database, "SELECT * FROM reel.commands WHERE session = 'odd' ORDER BY stored_at")
    assert [(row["type"], row["actor"], row["outcome"], row["data"]) for row in rows] == [
        (None, None, "pending", None),
        ("session.crate", "ann", "pending", None),
    ]
    assert all("not in order" in row["problem"] for row in rows)


async def test_stages_follow_each_other_without_a_hole(told: Story, database: str) -> None:
    rows = await fetch(database, "SELECT * FROM reel.session_timeline WHERE session = 'demo' ORDER BY number")
    assert [row["stage"] for row in rows] == ["requested", "provisioning", "ready", "destroying", "destroyed"]
    assert [row["number"] for row in rows] == [1, 2, 3, 4, 5]
    for row, after in pairwise(rows):
        assert (row["ended_at"], row["next_stage"], row["ended_cursor"]) == (
            after["began_at"],
            after["stage"],
            after["began_cursor"],
        )
        assert row["duration_ms"] == int((row["ended_at"] - row["began_at"]).total_seconds() * 1000)
    assert rows[-1]["ended_at"] is None
    [failed] = await fetch(database, "SELECT * FROM reel.session_timeline WHERE stage = 'failed'")
    assert (failed["session"], failed["detail"]) == ("bad", "boot: BOOT_TIMEOUT: it did not come up")


async def test_both_streams_have_a_lag_of_their_own(told: Story, database: str) -> None:
    for stream in ("REEL-0", CMD):
        query = f"SELECT * FROM reel.projection_lag WHERE stream = '{stream}'"
        row = await until(database, query, lambda row: row["sequence"] > 0)
        assert (row["sequence"], row["lag_events"]) == (told.last[stream], 0)
