"""The turn machine, as transcripts: what happened, what is asked, what is answered."""

from __future__ import annotations

from typing import Any

import pytest

from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as c
from sandreel_core.contract.message import Command, Envelope, Event, Unknown
from sandreel_core.contract.session import CommandRefused, Stop
from sandreel_core.errors import Refused
from sandreel_core.turn import Turn, derived_id, exec_of, fold, summed
from sandreel_core.turn_decision import MAX_QUEUED, Terms, decide, mark_of
from tests.support.turns import AT, ME, OTHER, RUNNING, folded, preparing, requested, result, said, started, text

TERMS = Terms(agents=frozenset(("claude-code", "codex")), mark=mark_of("019ac0de-0000-7000-8000-00000012ab9f"))
START = c.StartTurn(turn="t1", agent="claude-code", prompt="hi")
FINISHED = c.TurnFinished(status="success")
PROPOSED = (*RUNNING, c.PlanProposed(plan="1. look"), c.TurnFinished(status="plan"))


def steer(id: str = "m1", words: str = "and this") -> c.Steer:
    return c.Steer(turn="t1", message_id=id, text=words)


def queued(*ids: str) -> list[Event]:
    return [c.SteerQueued(message_id=id, text=id) for id in ids]


TRANSCRIPTS: dict[str, tuple[list[Any], Command, Any]] = {
    "a turn is asked for, and is its own conversation": ([], START, c.TurnRequested(agent="claude-code", prompt="hi", conversation_id="t1")),
    "a second one of that id": ([requested()], START, "DUPLICATE_TURN"),
    "also when it is long over": ([*RUNNING, FINISHED], START, "DUPLICATE_TURN"),
    "an agent that there is not": ([], c.StartTurn(turn="t1", agent="clippy", prompt="hi"), "UNKNOWN_AGENT"),
    "no such turn": ([], steer(), "TURN_NOT_FOUND"),
    "what was refused makes no turn": ([CommandRefused(command_id="c", code="NO", message="no")], steer(), "TURN_NOT_FOUND"),
    "a message": ([*RUNNING], steer(), c.SteerQueued(message_id="m1", text="and this")),
    "before it runs too": ([requested()], steer(), c.SteerQueued(message_id="m1", text="and this")),
    "the same message again": ([*RUNNING, *queued("m1")], steer(), None),
    "ten wait": ([*RUNNING, *queued(*"0123456789")], steer(), "QUEUE_FULL"),
    "one of ten was read": ([*RUNNING, *queued(*"0123456789"), c.SteerConsumed(message_ids=["3"])], steer(), c.SteerQueued(message_id="m1", text="and this")),
    "one that was delivered waits still": ([*RUNNING, *queued(*"0123456789"), c.SteerDelivered(message_ids=["3"], channel="hook")], steer(), "QUEUE_FULL"),
    "those that went back into the queue wait still": ([*RUNNING, *queued(*"0123456789"), c.SteerRequeued(message_ids=["3"])], steer(), "QUEUE_FULL"),
    "it is over": ([*RUNNING, FINISHED], steer(), "TURN_FINISHED"),
    "it is being stopped": ([*RUNNING, c.TurnInterrupting()], steer(), "TURN_FINISHED"),
    "stop": ([*RUNNING], c.Interrupt(turn="t1"), c.TurnInterrupting()),
    "stop before it runs": ([requested()], c.Interrupt(turn="t1"), c.TurnInterrupting()),
    "stop twice": ([*RUNNING, c.TurnInterrupting()], c.Interrupt(turn="t1"), None),
    "stop too late": ([*RUNNING, FINISHED], c.Interrupt(turn="t1"), "TURN_FINISHED"),
    "no plan": ([*RUNNING, FINISHED], c.Approve(turn="t1"), "NO_PLAN"),
    "approved": ([*PROPOSED], c.Approve(turn="t1"), c.PlanApproved(next_turn="t1-go-12ab9f")),
    "approved twice": ([*PROPOSED, c.PlanApproved(next_turn="t1-go")], c.Approve(turn="t1"), None),
    "rejected after that": ([*PROPOSED, c.PlanApproved(next_turn="t1-go")], c.Reject(turn="t1"), "PLAN_DECIDED"),
    "rejected": ([*PROPOSED], c.Reject(turn="t1", reason="no"), c.PlanRejected(reason="no")),
    "rejected twice": ([*PROPOSED, c.PlanRejected()], c.Reject(turn="t1"), None),
    "approved, and stopped before it ended": ([*PROPOSED[:-1], c.TurnInterrupting()], c.Approve(turn="t1"), "NO_PLAN"),
    "rejected, and stopped before it ended": ([*PROPOSED[:-1], c.TurnInterrupting()], c.Reject(turn="t1"), "NO_PLAN"),
    "approved before it ended": ([*PROPOSED[:-1]], c.Approve(turn="t1"), c.PlanApproved(next_turn="t1-go-12ab9f")),
    "approved after that": ([*PROPOSED, c.PlanRejected()], c.Approve(turn="t1"), "PLAN_DECIDED"),
    "a command about something else": ([requested()], Stop(), "BAD_REQUEST"),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_what_a_command_leads_to(name: str) -> None:
    events, command, expected = TRANSCRIPTS[name]
    answer = decide(folded(*events), command, TERMS)
    assert (answer.code if isinstance(answer, Refused) else answer) == expected


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"prompt": "é" * 40_000}, ("prompt", "80000", "65536")),
        ({"system_prompt_append": "é" * 40_000}, ("system_prompt_append", "80000", "65536")),
        ({"workdir": "/etc"}, ("workdir", "/etc")),
        ({"workdir": "a/../../b"}, ("workdir", "a/../../b")),
        ({"attachments": [c.Attachment(path="../x")]}, ("attachments.path", "../x")),
        ({"attachments": [c.Attachment(path="uploads/../../x")]}, ("attachments.path", "uploads/../../x")),
        ({"attachments": [c.Attachment(path="/etc/passwd")]}, ("attachments.path", "/etc/passwd")),
        (
            {"attachments": [c.Attachment(path="a/b"), c.Attachment(path="a/./b")]},
            ("attachments.path", "a/./b", "twice"),
        ),
        ({"attachments": [c.Attachment(path="a"), c.Attachment(path="/workspace/a")]}, ("/workspace/a", "twice")),
    ],
)
def test_a_bad_turn_is_refused_by_field_and_limit(fields: dict[str, Any], names: tuple[str, ...]) -> None:
    answer = decide(Turn(), c.StartTurn(**{"turn": "t1", "agent": "codex", "prompt": "hi"} | fields), TERMS)
    assert isinstance(answer, Refused)
    assert answer.code == "BAD_REQUEST"
    assert all(name in answer.message for name in names)
    long = decide(folded(*RUNNING), steer(words="é" * 40_000), TERMS)
    assert isinstance(long, Refused)
    assert "text has 80000 bytes" in long.message


def test_an_unknown_event_of_a_turn_stops_deciding_and_one_of_an_agent_does_not() -> None:
    def unknown(type: str) -> Envelope:
        data = Unknown(raw_type=type, problem="?")
        return Envelope(specversion="1.0", id="1", source=ME, subject="s", time=AT, data=data)

    assert decide(folded(*RUNNING, unknown("agent.newer")), c.Interrupt(turn="t1"), TERMS) == c.TurnInterrupting()
    answer = decide(folded(*RUNNING, unknown("turn.newer")), c.Interrupt(turn="t1"), TERMS)
    assert isinstance(answer, Refused)
    assert answer.code == "NEWER_CONTRACT"


def test_who_drives_it_is_who_said_something_that_answers_no_command() -> None:
    turn = folded(said(requested(), source=OTHER, command="c1"))
    assert turn.driver == OTHER
    turn = fold(turn, said(preparing(), source=ME))
    assert turn.driver == ME
    turn = fold(turn, said(c.TurnInterrupting(), source=OTHER, command="c2"))
    assert (turn.driver, turn.interrupting) == (ME, True)


def test_what_the_agent_said_is_counted_by_its_place_in_the_exec() -> None:
    turn = folded(*RUNNING, text(n=3), text(n=3), text(n=5))
    assert (turn.run.source_n, turn.run.at_source, turn.run.said) == (5, 1, True)
    again = folded(preparing(incarnation=1), turn=turn)
    assert again.run == turn.run, "the same attempt goes on"
    second = folded(preparing(2), turn=turn)
    assert (second.accepted, second.run.said, second.keys) == (False, False, ((1, 1), (1, 2)))
    assert folded(preparing(), preparing(incarnation=2), turn=folded(requested())).keys == ((1, 1), (2, 2)), (
        "one for each"
    )


def test_a_result_counts_until_the_agent_goes_on() -> None:
    turn = folded(*RUNNING, text(), result())
    assert turn.run.result is not None
    assert turn.usage == c.Usage(input_tokens=100, output_tokens=10, cost_micro_usd=450)
    on = folded(text("a sub-agent", n=5, parent="x"), turn=turn)
    assert on.run.result is not None, "what a sub-agent says does not take it back"
    on = folded(text("more", n=6), turn=on)
    assert on.run.result is None
    assert folded(result(n=7), turn=on).usage.cost_micro_usd == 900


@pytest.mark.parametrize(
    "path", ["/workspace/.home/.claude/plans/a-b.md", "/w/.home/.gemini-cli/.gemini/tmp/repo/1-2/plans/p.md"]
)
def test_what_is_written_to_the_plan_s_file_is_the_plan(path: str) -> None:
    def used(name: str, **given: Any) -> a.ToolUse:
        return a.ToolUse(source_n=3, tool_use_id="w", tool_name=name, input={"file_path": path} | given)

    planning = folded(requested(permission_mode="plan"), preparing(), started())
    written = folded(used("Write", content="1. look\n2. look"), turn=planning)
    assert written.run.plan == "1. look\n2. look"
    assert folded(used("Edit", old_string="look", new_string="leap"), turn=written).run.plan == "1. leap\n2. look"
    every = used("Edit", old_string="look", new_string="leap", replace_all=True)
    assert folded(every, turn=written).run.plan == "1. leap\n2. leap"
    handed = a.ToolUse(source_n=4, tool_use_id="p", tool_name="ExitPlanMode", input={})
    read = a.ToolUse(source_n=4, tool_use_id="r", tool_name="Read", input={"file_path": path})
    elsewhere = used("Write", content="x", file_path="/workspace/repo/a.md")
    for other in (handed, read, elsewhere):
        assert folded(other, turn=written).run.plan == "1. look\n2. look"
    assert folded(used("Edit", old_string="x", new_string="y"), turn=planning).run.plan is None
    executing = folded(requested(), preparing(), started(), used("Write", content="1. look"))
    assert executing.run.plan is None


@pytest.mark.parametrize(("mode", "kept"), [("plan", "1. look"), ("execute", None)])
def test_a_plan_is_what_was_proposed_last_unless_it_is_carried_out(mode: Any, kept: str | None) -> None:
    plan = a.ToolUse(source_n=3, tool_use_id="p", tool_name="ExitPlanMode", input={"plan": "1. look"})
    turn = folded(requested(permission_mode=mode), preparing(), started(), plan)
    assert turn.run.plan == "1. look"
    assert folded(a.ToolUse(source_n=4, tool_use_id="w", tool_name="Write", input={}), turn=turn).run.plan == kept


def test_messages_go_from_queued_to_read_or_back() -> None:
    turn = folded(*RUNNING, *queued("a", "b", "c"), c.SteerDelivered(message_ids=["a", "b"], channel="stdin"))
    turn = folded(c.SteerConsumed(message_ids=["a"]), turn=turn)
    assert turn.waiting == ["b", "c"]
    turn = folded(c.SteerRequeued(message_ids=["b", "c"]), turn=turn)
    assert (turn.waiting, list(turn.requeued)) == ([], ["b", "c"])
    assert len(folded(*RUNNING, *queued(*"0123456789")).waiting) == MAX_QUEUED


def test_what_was_read_stays_so_and_its_text_is_forgotten() -> None:
    turn = folded(*RUNNING, *queued("a"), c.SteerConsumed(message_ids=["a"]))
    for event in (c.SteerDelivered(message_ids=["a"], channel="hook"), c.SteerRequeued(message_ids=["a"])):
        assert folded(event, turn=turn).messages == turn.messages
    assert turn.messages["a"].text == ""


def test_of_messages_those_that_were_read_are_forgotten_first() -> None:
    turn = folded(*RUNNING, *queued("back"), c.SteerRequeued(message_ids=["back"]))
    for number in range(300):
        turn = folded(*queued(f"m{number}"), c.SteerConsumed(message_ids=[f"m{number}"]), turn=turn)
    assert list(turn.requeued) == ["back"]
    assert len(turn.messages) <= 257
    assert turn.messages["m299"].number == 301


def test_a_result_without_usage_leaves_the_sum_unknown() -> None:
    turn = folded(*RUNNING, result(), text(n=5), result("interrupted", n=6, usage=None))
    assert (turn.usage.cost_micro_usd, turn.unmeasured) == (450, True)
    assert not folded(*RUNNING, result()).unmeasured


def test_what_comes_behind_the_end_changes_nothing_but_the_plan() -> None:
    turn = folded(*RUNNING, text(), FINISHED)
    assert folded(text("late", n=9), c.TurnFinished(status="failed"), preparing(2), turn=turn).finished == FINISHED
    assert folded(text("late", n=9), turn=turn).run == turn.run


def test_ids_that_belong_to_a_turn_fit_and_differ() -> None:
    assert exec_of("t1", 2) == "t1-2"
    one, other = exec_of("x" * 63 + "a", 1), exec_of("x" * 63 + "b", 1)
    assert one != other
    assert {len(one), len(other)} == {64}
    assert derived_id("x" * 64, "go") != derived_id("x" * 64, "next")


def test_a_sum_has_a_price_only_if_all_have_one() -> None:
    priced, unpriced = c.Usage(input_tokens=1, cost_micro_usd=5), c.Usage(output_tokens=2)
    assert summed([priced, priced]).cost_micro_usd == 10
    assert summed([priced, unpriced]) == c.Usage(input_tokens=1, output_tokens=2)
    assert summed([]) == c.Usage(cost_micro_usd=0)
