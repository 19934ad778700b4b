"""The folds behind the views of turns and of what they cost, without any server."""

from __future__ import annotations

import msgspec
import pytest

from sandreel_core.bus.port import Stored
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.contract import usage as u
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.message import Event
from sandreel_core.contract.session import CommandRefused, CommandSettled
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_projections import ledger, turn_items, turns
from sandreel_projections.change import Change, change
from sandreel_projections.tables import columns
from sandreel_projections.tables import turn_items as items_table
from tests.support.script import AT, message
from tests.support.turn_story import COUNTED, EVENTS, FIRST, LONG, call

SUBJECTS = SessionSubjects("acme", "s1")
NS = 10**18


def changed(event: Event, sequence: int = 1, **attributes: str) -> Change:
    key = "t1" if event.aggregate == "turn" else ""
    subject, body = message(SUBJECTS, event, key=key, **attributes)
    return change(Stored(subject, sequence, body, NS + sequence * 10**9), "e1")


def folded(*events: Event) -> turns.TurnRow:
    row = None
    for sequence, event in enumerate(events, 1):
        cause = {"causationid": "c-1"} if isinstance(event, t.TurnRequested) else {}
        made = changed(event, sequence, actor="ann", **cause)
        if turns.key(made) is not None:
            row, record, problem = turns.step(row, made)
            assert (record, problem) == (None, "")
    assert row is not None
    return row


def item(event: Event, sequence: int = 1) -> dict[str, object]:
    record = turn_items.record(changed(event, sequence))
    assert record is not None
    return dict(zip(columns(items_table), record, strict=True))


def test_a_turn_from_its_request_to_its_end() -> None:
    usage = t.Usage(input_tokens=5, output_tokens=7, cost_micro_usd=2**70)
    row = folded(
        t.TurnRequested(agent="claude", prompt="p" * 2000, model="m1"),
        t.TurnStarted(exec="x-9"),
        a.RunStarted(source_n=1, agent="claude", model="m2"),
        a.ToolUse(source_n=2, tool_use_id="u", tool_name="bash"),
        a.ToolResult(source_n=3, tool_use_id="u", is_error=True),
        t.SteerQueued(message_id="a", text="x"),
        t.SteerDelivered(message_ids=["a"], channel="stdin"),
        t.Checkpoint(exec_n=12),
        t.TurnFinished(status="success", usage=usage),
        t.TurnRequested(agent="other"),
    )
    assert (row.phase, row.status, row.agent, row.model, row.exec) == ("finished", "success", "claude", "m1", "x-9")
    assert (row.tool_uses, row.tool_errors, row.steers_queued, row.steers_delivered) == (1, 1, 1, 1)
    assert (row.output_tokens, row.cost_micro_usd, row.checkpoint_n) == (7, 2**63 - 1, 12)
    assert (row.first_cursor, row.last_cursor, row.requested_by) == ("e1:0:1", "e1:0:10", "ann")
    assert row.prompt == "p" * 1024 + "…[+976]"


def test_how_far_a_turn_is_and_when_it_was_last_heard_of() -> None:
    row = folded(*EVENTS[:-3])
    assert row.progress == "I look at the test.\n\nFixed it."
    assert (row.phase, row.attempt, row.incarnation, row.budget_micro_usd) == ("running", 1, 1, 5_000_000)
    assert (row.steers_consumed, row.agent_errors, row.agent_session_id) == (1, 1, "a-1")
    assert row.heartbeat_at is not None
    assert row.last_event_at is not None
    assert row.driver == "/test"
    before = folded(*EVENTS[:-4])  # which ends with the checkpoint
    assert before.heartbeat_at is not None
    assert before.last_event_at is not None
    assert before.heartbeat_at > before.last_event_at
    recent = msgspec.json.decode(row.recent_events)
    assert len(recent) <= turns.MAX_RECENT
    assert (recent[-1]["type"], recent[-1]["text"]) == ("agent.text", "Fixed it.")
    assert all(len(each.get("text", "")) <= 200 for each in recent)


def test_progress_is_the_last_of_what_was_said_and_recent_events_the_last_twenty() -> None:
    row = folded(*(a.AgentText(source_n=n, text=f"{n} " * 1000) for n in range(1, 31)))
    assert row.progress is not None
    assert len(row.progress) == 8000
    assert row.progress.endswith("30 30 ")
    assert [each["text"][:2] for each in msgspec.json.decode(row.recent_events)] == [f"{n}" for n in range(11, 31)]


def test_a_second_attempt_has_another_exec_and_a_plan_is_decided_once() -> None:
    row = folded(
        t.TurnRequested(agent="a"),
        t.TurnPreparing(attempt=1, exec="x-1", incarnation=1),
        t.TurnStarted(exec="x-1"),
        t.TurnPreparing(attempt=2, exec="x-2", incarnation=1),
        t.TurnStarted(exec="x-2", key="k-2"),
        t.PlanProposed(plan="1. …"),
        t.TurnFinished(status="plan"),
        t.PlanApproved(next_turn="t2"),
        t.PlanRejected(),
    )
    assert (row.exec, row.attempt, row.key_name) == ("x-2", 2, "k-2")
    assert (row.plan, row.plan_decision, row.next_turn, row.status) == ("1. …", "approved", "t2", "plan")


def test_a_turn_that_was_refused_is_none_and_a_refusal_is_told() -> None:
    subject = SUBJECTS.event("turn", "t1")
    for answer in (
        CommandRefused(command_id="c-1", code="BAD_REQUEST", message="no such agent"),
        CommandSettled(command_id="c-1", message="it is over"),
    ):
        sealed = seal(answer, id="e", source="/bridge", subject=subject, time=AT, causationid="c-1")
        made = change(Stored(subject, 1, encode(sealed), NS), "e1")
        assert turns.key(made) is None
        record = turn_items.record(made)
        assert (record is not None) is isinstance(answer, CommandRefused)
        if record is not None:
            row = dict(zip(columns(items_table), record, strict=True))
            assert (row["kind"], row["name"], row["text"]) == ("refused", "BAD_REQUEST", "no such agent")


def test_an_output_is_cut_and_says_so() -> None:
    row = item(a.ToolResult(source_n=1, tool_use_id="u", output=LONG))
    assert (row["text"], row["omitted_chars"]) == ("o" * 16_000, 4000)
    assert item(a.AgentText(source_n=1, text=LONG))["text"] == LONG
    assert item(a.ToolResult(source_n=1, tool_use_id="u", output={"a": "\0"}))["text"] == '{"a":"\\u0000"}'
    long_input = item(a.ToolUse(source_n=1, tool_use_id="u", tool_name="Write", input={"text": "x" * 70_000}))
    assert long_input["data"] == '{"text":"' + "x" * 1024 + '…[+68976]"}'


def test_a_checkpoint_is_no_part_of_the_timeline_and_neither_is_what_is_no_turns() -> None:
    assert turn_items.record(changed(t.Checkpoint(exec_n=1))) is None
    assert turn_items.record(changed(call("c", FIRST))) is None


def test_a_call_counts_once_whatever_comes_later() -> None:
    first, again = changed(call("c", FIRST), 1), changed(call("c", t.Usage(input_tokens=9)), 2)
    assert ledger.call_key(first) == ledger.call_key(again) == ("acme", "s1", "c")
    row, _, _ = ledger.call(None, first)
    assert ledger.call(row, again)[0] is row
    assert row is not None
    assert (row.input_tokens, row.cost_micro_usd, row.cursor, row.day.isoformat()) == (
        1000,
        4500,
        "e1:0:1",
        "2001-09-09",
    )


def test_an_unknown_price_is_none_and_an_endless_id_is_told_apart_by_its_hash() -> None:
    row, _, _ = ledger.call(None, changed(call("c", t.Usage(input_tokens=1))))
    assert row is not None
    assert row.cost_micro_usd is None
    keys = {ledger.call_key(changed(call("x" * 9999 + end, FIRST))) for end in "ab"}
    assert len(keys) == 2
    assert all(key is not None and len(key[2]) < 200 for key in keys)


@pytest.mark.parametrize(
    ("gateway", "agent", "expected"),
    [
        ((100_000, 0, 1_000_000), (100_000, 0, 1_050_000), False),  # exactly 5 %
        ((100_000, 0, 1_000_000), (100_000, 0, 1_050_001), True),
        ((100_000, 0, 1_000_000), (100_000, 0, 949_999), True),
        ((100, 0, 1000), (100, 0, 11_000), False),  # exactly a cent
        ((100, 0, 1000), (100, 0, 11_001), True),
        ((10_000, 500, None), (10_500, 1000, 7), False),  # 1000 tokens
        ((10_000, 500, 7), (10_500, 1001, None), True),
        ((0, 0, None), (0, 0, None), False),
    ],
)
def test_what_counts_as_a_drift(
    gateway: tuple[int, int, int | None], agent: tuple[int, int, int | None], expected: bool
) -> None:
    def usage(of: tuple[int, int, int | None]) -> t.Usage:
        return t.Usage(input_tokens=of[0], output_tokens=of[1], cost_micro_usd=of[2])

    assert ledger.drifted(usage(gateway), usage(agent)) is expected
    assert ledger.drifted(usage(gateway), None) is None


def test_the_newest_reconciliation_holds() -> None:
    first = u.UsageReconciled(turn="t", gateway=FIRST)
    row, _, _ = ledger.reconciled(None, changed(first, 1))
    assert row is not None
    assert (row.agent_input_tokens, row.drift_tokens, row.drifted) == (None, None, None)
    row, _, _ = ledger.reconciled(row, changed(u.UsageReconciled(turn="t", gateway=COUNTED, agent=COUNTED), 2))
    assert row is not None
    assert (row.gateway_input_tokens, row.drift_tokens, row.drifted, row.cursor) == (3010, 0, False, "e1:0:2")
