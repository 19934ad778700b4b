"""What a turn did and what it cost, as SQL tells it: from the log alone, and the same after a rebuild."""

from __future__ import annotations

import asyncio
from datetime import date
from decimal import Decimal
from itertools import product
from typing import Any, get_args

import msgspec
import pytest

from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.contract.message import Event
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.session import Phase
from sandreel_core.session_word import word
from sandreel_projections import drift
from sandreel_projections.examples import COST
from sandreel_projections.registry import sources
from tests.projections.test_projector import fetch
from tests.projections.test_rebuild import rebuilding
from tests.projections.test_views import project
from tests.support.script import message
from tests.support.story import Story
from tests.support.turn_story import COUNTED, EVENTS, FIRST, call


async def say(told: Story, dsn: str, *events: Event, turn: str = "t-2", session: str = "demo") -> None:
    for event in events:
        key = turn if event.aggregate == "turn" else ""
        await told.bus.append(*message(SessionSubjects("default", session), event, key=key))
    await project(told.bus, dsn)


async def one(dsn: str, sql: str, *arguments: Any) -> dict[str, Any]:
    [row] = await fetch(dsn, sql, *arguments)
    return row


# -- turns


async def test_ops_says_who_what_how_far_and_what_it_costs_so_far(told: Story, database: str) -> None:
    row = await one(database, "SELECT * FROM reel.ops")
    assert (row["state"], row["phase"], row["status"]) == ("completed", "finished", "success")
    assert (row["agent"], row["requested_by"], row["owner_id"], row["command_id"]) == (
        "claude-code", "ann", "ann", told.commands["turn"],
    )  # fmt: skip
    assert row["progress"] == "I look at the test.\n\nFixed it."
    assert (row["exec"], row["attempt"], row["budget_micro_usd"]) == ("t-1-1", 1, 5_000_000)
    assert (row["calls"], row["unpriced_calls"], row["spent_micro_usd"]) == (3, 1, 13_500)
    assert row["first_cursor"] < row["last_cursor"]
    assert row["requested_at"] is not None
    assert row["heartbeat_at"] > row["last_event_at"]
    assert msgspec.json.decode(row["recent_events"])[-1]["type"] == "turn.finished"


async def test_every_status_has_a_state(told: Story, database: str) -> None:
    states = {
        "success": "completed",
        "plan": "completed",
        "failed": "failed",
        "interrupted": "failed",
        "max_turns": "failed",
        "cancelled": "cancelled",
    }
    assert {*states} == {*get_args(t.TurnStatus)}
    for status in get_args(t.TurnStatus):
        subjects = SessionSubjects("default", "demo")
        for event in (t.TurnRequested(agent="a"), t.TurnFinished(status=status)):
            await told.bus.append(*message(subjects, event, key=status))
    await say(told, database, t.TurnRequested(agent="a"), turn="goes-on")
    rows = await fetch(database, "SELECT turn, state FROM reel.ops WHERE turn <> 't-1'")
    assert {row["turn"]: row["state"] for row in rows} == states | {"goes-on": "running"}


async def test_the_timeline_has_a_tools_two_events_in_one_row_and_sub_agents_nested(told: Story, database: str) -> None:
    rows = await fetch(database, "SELECT * FROM reel.turn_events WHERE turn = 't-1' ORDER BY position")
    assert [(row["kind"], row["depth"], row["name"] or row["text"]) for row in rows] == [
        ("requested", 0, "claude-code"),
        ("preparing", 0, None),
        ("started", 0, None),
        ("run_started", 0, "claude-code"),
        ("text", 0, "I look at the test."),
        ("tool", 0, "Bash"),
        ("tool", 0, "Task"),
        ("task", 1, "search"),
        ("text", 1, "Searching."),
        ("tool", 1, "Task"),
        ("text", 2, "Deeper."),
        ("steer_queued", 0, "and the docs"),
        ("steer_delivered", 0, None),
        ("steer_consumed", 0, None),
        ("error", 0, "overloaded, tries again"),
        ("text", 0, "Fixed it."),
        ("result", 0, "Fixed it."),
        ("finished", 0, None),
    ]
    bash, task, began = rows[5], rows[6], rows[7]
    assert msgspec.json.decode(bash["data"]) == {"command": "pytest -q"}
    assert (bash["output"], bash["output_omitted_chars"], bash["is_error"]) == ("o" * 16_000, 4000, True)
    assert (task["output"], task["is_error"], task["pair"]) == ("Found it.", False, "u-2")
    assert task["duration_ms"] == pytest.approx((task["ended_at"] - task["at"]).total_seconds() * 1000)
    assert (began["status"], began["ended_cursor"] > began["cursor"]) == ("completed", True)
    assert rows[12]["message_ids"] == ["m-1"]
    assert rows[12]["status"] == "stdin"


async def test_ends_without_a_beginning_and_second_ends_are_rows_of_their_own(told: Story, database: str) -> None:
    await say(
        told,
        database,
        a.ToolResult(source_n=1, tool_use_id="a", output="alone"),
        a.ToolUse(source_n=2, tool_use_id="b", tool_name="Bash"),
        a.ToolResult(source_n=3, tool_use_id="b", output="first"),
        a.ToolResult(source_n=4, tool_use_id="b", output="second"),
        a.ToolUse(source_n=5, tool_use_id="c", tool_name="Bash"),
        a.AgentText(source_n=6, text="of nobody's", parent="unknown"),
    )
    rows = await fetch(database, "SELECT * FROM reel.turn_events WHERE turn = 't-2' ORDER BY position")
    assert [(row["kind"], row["pair"], row["output"], row["depth"]) for row in rows] == [
        ("tool", "a", "alone", 0),
        ("tool", "b", "first", 0),
        ("tool", "b", "second", 0),
        ("tool", "c", None, 0),
        ("text", None, None, 1),
    ]


async def test_depth_is_told_up_to_eight(told: Story, database: str) -> None:
    uses = [
        a.ToolUse(source_n=n, tool_use_id=f"u{n}", tool_name="Task", parent=f"u{n - 1}" if n > 1 else None)
        for n in range(1, 13)
    ]
    await say(told, database, *uses)
    rows = await fetch(database, "SELECT depth FROM reel.turn_events WHERE turn = 't-2' ORDER BY position")
    assert [row["depth"] for row in rows] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8]


# -- what they cost


async def test_the_ledger_has_each_call_once_and_an_unknown_price_is_null(told: Story, database: str) -> None:
    rows = await fetch(database, "SELECT * FROM reel.usage_ledger ORDER BY stored_at")
    assert [(row["call_id"], row["cost_micro_usd"]) for row in rows] == [
        ("call-1", 4500),
        ("call-2", 9000),
        ("call-3", None),
    ]
    first = rows[0]
    assert (first["agent_name"], first["conversation_id"], first["command_id"]) == (
        "claude-code", "c-1", told.commands["turn"],
    )  # fmt: skip
    assert (first["user_id"], first["provider_name"], first["request_model"], first["response_model"]) == (
        "ann", "anthropic", "best", "big",
    )  # fmt: skip
    assert (first["prices"], first["key_name"], first["complete"]) == ("2026-11", "acme.demo.1.t-1.1", True)
    assert first["cursor"].startswith("e1:0:")


async def test_the_ledger_adds_up_and_what_the_agent_says_stands_beside_it(told: Story, database: str) -> None:
    row = await one(database, "SELECT * FROM reel.usage_turns")
    counted = msgspec.structs.asdict(COUNTED)
    assert {name: row[name] for name in counted} == counted
    assert (row["calls"], row["unpriced_calls"], row["incomplete_calls"]) == (3, 1, 1)
    assert (row["gateway_cost_micro_usd"], row["agent_cost_micro_usd"], row["drift_micro_usd"]) == (
        13_500,
        50_000,
        -36_500,
    )
    assert (row["drift_tokens"], row["drifted"]) == (3131 - 3120, True)


async def test_calls_of_no_turn_and_of_a_turn_that_is_not_known_are_counted_too(told: Story, database: str) -> None:
    await say(told, database, call("free", FIRST, turn=None), call("lost", FIRST, turn="t-9"))
    row = await one(database, "SELECT * FROM reel.usage_turns WHERE turn = 't-9'")
    assert (row["phase"], row["calls"], row["cost_micro_usd"]) == (None, 1, 4500)
    total = await one(database, "SELECT sum(cost_micro_usd) AS cost, sum(calls) AS calls FROM reel.usage_daily")
    assert total == {"cost": 13_500 + 2 * 4500, "calls": 5}


async def test_roll_ups_are_sums_of_the_ledger_by_days_iso_weeks_and_months_of_utc(told: Story, database: str) -> None:
    """A Sunday and a Monday at New Year: the last week of 2026 has five days in it and two in January."""
    for number, day in enumerate((date(2026, 12, 31), date(2027, 1, 3), date(2027, 1, 4))):
        await fetch(database, "UPDATE reel.usage_calls SET day = $1 WHERE call_id = $2", day, f"call-{number + 1}")
    # A reader's own zone changes nothing.
    await fetch(database, f"ALTER DATABASE {database.rpartition('/')[2]} SET timezone = 'Pacific/Kiritimati'")
    names = "user_id, agent_name, response_model, calls, unpriced_calls, input_tokens, cost_micro_usd"
    days, weeks, months = [
        [
            tuple(row.values())
            for row in await fetch(database, f"SELECT {period}, {names} FROM reel.{view} ORDER BY 1, 4")
        ]
        for view, period in (
            ("usage_daily", "day"),
            ("usage_weekly", "week || ' from ' || week_begins AS week"),
            ("usage_monthly", "month || ' from ' || month_begins AS month"),
        )
    ]
    assert days == [
        (date(2026, 12, 31), "ann", "claude-code", "big", 1, 0, 1000, 4500),
        (date(2027, 1, 3), "ann", "claude-code", "big", 1, 0, 2000, 9000),
        (date(2027, 1, 4), "ann", "claude-code", "new", 1, 1, 10, None),
    ]
    assert weeks == [
        ("2026-W53 from 2026-12-28", "ann", "claude-code", "big", 2, 0, 3000, 13_500),
        ("2027-W01 from 2027-01-04", "ann", "claude-code", "new", 1, 1, 10, None),
    ]
    assert months == [
        ("2026-12 from 2026-12-01", "ann", "claude-code", "big", 1, 0, 1000, 4500),
        ("2027-01 from 2027-01-01", "ann", "claude-code", "big", 1, 0, 2000, 9000),
        ("2027-01 from 2027-01-01", "ann", "claude-code", "new", 1, 1, 10, None),
    ]


async def test_absurd_counts_make_nobodys_sums_fail(told: Story, database: str) -> None:
    absurd = t.Usage(input_tokens=2**80, output_tokens=2**80, cost_micro_usd=2**80)
    await say(told, database, call("absurd-1", absurd), call("absurd-2", absurd))
    for view in ("usage_daily", "usage_weekly", "usage_monthly", "usage_turns"):
        [row] = await fetch(database, f"SELECT max(cost_micro_usd) AS cost FROM reel.{view}")
        assert row["cost"] == 2**63 - 1
    assert (await one(database, "SELECT spent_micro_usd FROM reel.ops WHERE turn = 't-1'"))[
        "spent_micro_usd"
    ] == 2**63 - 1


async def test_why_a_turn_cost_what_it_cost_is_one_query_from_command_to_call(told: Story, database: str) -> None:
    rows = await fetch(database, COST)
    assert [row["call_id"] for row in rows] == ["call-1", "call-2", "call-3"]
    assert {(row["actor"], row["command_id"], row["source"]) for row in rows} == {
        ("ann", told.commands["turn"], "/client/ann@laptop")
    }
    assert {(row["turn_cost_micro_usd"], row["unpriced_calls"]) for row in rows} == {(Decimal(13_500), 1)}
    searching = msgspec.structs.replace(call("call-4", FIRST), web_searches=2)
    await say(told, database, searching)
    assert [row["web_searches"] for row in await fetch(database, COST)] == [0, 0, 0, 2]


async def test_the_doctor_is_alarmed_by_drift_and_by_what_has_no_price(told: Story, database: str) -> None:
    drifted, prices = await drift.check(database)
    assert (drifted.level, prices.level) == ("warn", "warn")
    assert "1 turn of" in drifted.found
    assert "--session demo --turn t-1" in drifted.mend
    assert "anthropic's new" in prices.found
    await fetch(database, "UPDATE reel.usage_reconciled SET drifted = false")
    await fetch(database, "UPDATE reel.usage_calls SET cost_micro_usd = 0")
    assert [each.level for each in await drift.check(database)] == ["ok", "ok"]
    await fetch(database, "DROP TABLE reel.usage_reconciled CASCADE")
    assert await drift.check(database) == []


# -- sessions in people's words


async def test_sql_and_python_have_the_same_word_for_every_session(told: Story, database: str) -> None:
    busy = (
        "INSERT INTO reel.execs SELECT (jsonb_populate_record(NULL::reel.execs, jsonb_object_agg(a.attname, 0)"
        ' || \'{"org": "default", "session": "demo", "exec": "x", "phase": "running", "stdout_open": false,'
        ' "stderr_open": false, "first_cursor": "", "last_cursor": ""}\')).*'
        " FROM pg_attribute AS a WHERE a.attrelid = 'reel.execs'::regclass AND a.attnotnull AND a.attnum > 0"
    )
    for turns, execs in product((0, 1), (0, 1)):
        await fetch(database, "UPDATE reel.turns SET phase = $1", "running" if turns else "finished")
        await fetch(database, "DELETE FROM reel.execs")
        if execs:
            await fetch(database, busy)
        for phase, pinned in product(get_args(Phase), (False, True)):
            sql = "UPDATE reel.sessions SET phase = $1, pinned = $2 WHERE session = 'demo'"
            await fetch(database, sql, phase, pinned)
            row = await one(database, "SELECT * FROM reel.session_states WHERE session = 'demo'")
            assert (row["live_execs"], row["unfinished_turns"]) == (execs, turns)
            assert row["state"] == word(phase, pinned=pinned, working=bool(turns or execs))


# -- from the log alone


async def test_law_5_rebuilt_from_the_log_the_rows_are_the_same(told: Story, database: str) -> None:
    await say(told, database, *EVENTS, session="other", turn="t-1")
    told_before = {
        view: await fetch(database, f"SELECT * FROM reel.{view} ORDER BY 1, 2, 3, 4")
        for view in ("ops", "usage_ledger", "usage_turns", "usage_weekly", "turn_events")
    }
    async with asyncio.timeout(60):
        outcome = await rebuilding(told.bus, database, sources=sources(1)).run()
    rows = {each.table: (each.rows, each.differing) for each in outcome.compared}
    assert {name: rows[name] for name in ("turns", "usage_calls", "usage_reconciled")} == {
        "turns": (2, 0), "usage_calls": (6, 0), "usage_reconciled": (2, 0),
    }  # fmt: skip
    assert rows["turn_items"][0] > 30
    assert (outcome.differing, bool(outcome.swapped)) == (0, True)
    for view, before in told_before.items():
        assert await fetch(database, f"SELECT * FROM reel.{view} ORDER BY 1, 2, 3, 4") == before
    async with asyncio.timeout(60):
        assert (await rebuilding(told.bus, database, sources=sources(1), views=("ops",)).run()).swapped
    assert await fetch(database, "SELECT * FROM reel.ops ORDER BY 1, 2, 3, 4") == told_before["ops"]
