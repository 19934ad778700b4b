"""A turn as a person reads it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from sandreel_core.agent import Typed
from sandreel_core.cli.text import duration
from sandreel_core.cli.turn_prompt import budget
from sandreel_core.cli.turn_view import TurnView
from sandreel_core.cli.usage_table import dollars, tokens, usage_table
from sandreel_core.client.items import CaughtUp, Gap
from sandreel_core.client.turn_items import ModelUse, TurnEntry, TurnItem
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.contract.codec import seal
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Unknown

SUBJECT = "evt.0.acme.s1.turn.t1"
CURSOR = Cursor("e1", 0, 1)
AT = datetime(2026, 1, 31, tzinfo=UTC)


def said(event: t.TurnEvent, at_s: float = 0, actor: str | None = None) -> TurnEntry:
    sealed = seal(event, id="1", source="/test", subject=SUBJECT, time=AT, actor=actor)
    return TurnEntry(CURSOR, int((1000 + at_s) * 1e9), sealed)


def shown(*items: TurnItem, typed: bool = False, colours: bool = False) -> str:
    view = TurnView("t1", "s1", colours=colours, typed=typed)
    return "".join(view.text(item) for item in items) + view.closed()


def test_how_it_began_and_ended() -> None:
    asked = t.TurnRequested(
        agent="claude-code",
        prompt="Fix it.\n\n\tNow.",
        permission_mode="plan",
        conversation_id="c1",
        attachments=[t.Attachment(path="uploads/a.pdf")],
    )
    end = t.TurnFinished(status="max_turns", error="40 turns", usage=t.Usage(cost_micro_usd=1_500_000))
    assert shown(said(asked), CaughtUp(CURSOR), said(end, 75)).splitlines() == [
        *("● claude-code · plan only · turn t1 · session s1 · conversation c1", "> Fix it.", "> ", ">     Now."),
        *("  + uploads/a.pdf", "■ max turns in 1 min 15 s · $1.50", "  40 turns"),
    ]


def test_a_long_prompt_is_cut_and_says_so() -> None:
    lines = shown(said(t.TurnRequested(agent="a", prompt="\n".join(map(str, range(20)))))).splitlines()
    assert lines[1:] == [*(f"> {number}" for number in range(6)), "> … 14 more lines"]


def test_a_failure_is_told_once() -> None:
    failed = t.TurnFinished(status="failed", error="the model's API answered 402")
    said_before = a.AgentError(source_n=1, message="the model's API answered 402")
    result = a.AgentResult(source_n=1, status="error", error="the model's API answered 402")
    assert shown(said(said_before), said(result), said(failed)).count("402") == 1
    assert shown(said(result), said(failed)).count("402") == 1
    with_status = t.TurnFinished(status="failed", error=f"{failed.error} (the model's API answered 402)")
    assert shown(said(said_before), said(result), said(with_status)).splitlines()[1:] == ["■ failed in 0.0 s"]
    assert shown(said(failed)).count("402") == 1


def test_a_retry_is_no_failure_and_does_not_stand_for_one() -> None:
    retry = said(a.AgentError(source_n=1, message="the model's API answered 402", goes_on=True))
    assert "\x1b[31m" not in shown(retry, colours=True)
    failed = t.TurnFinished(status="failed", error="the model's API answered 402")
    assert shown(retry, said(failed)).count("402") == 2


def test_answers_and_counts_are_no_lines_of_their_own() -> None:
    usage = a.AgentUsage(source_n=1, usage=t.Usage(input_tokens=12_345, output_tokens=5))
    result = a.AgentResult(source_n=1, status="completed", final_text="x", usage=t.Usage(input_tokens=1))
    assert shown(said(usage), said(result), said(t.Checkpoint(exec_n=1, parser={}))) == ""


def test_what_is_said_meanwhile_and_what_becomes_of_it() -> None:
    events = [
        said(t.SteerQueued(message_id="m", text="also b.py\nplease"), actor="ada"),
        said(t.SteerDelivered(message_ids=["m"], channel="hook")),
        said(t.SteerConsumed(message_ids=["m"])),
        said(t.SteerRequeued(message_ids=["n"])),
        said(t.TurnPreparing(attempt=2, exec="x", incarnation=1)),
        said(t.TurnInterrupting(), actor="ada"),
    ]
    assert shown(*events).splitlines() == [
        *("» also b.py", "» please", "· the agent has read it", "· not read: it opens the next turn"),
        *("· it ended without a word: attempt 2", "· interrupted by ada"),
    ]


def test_a_plan_that_was_just_said_is_not_said_again() -> None:
    answer = said(a.AgentText(source_n=1, text="1. look\n2. mend"))
    assert shown(answer, said(t.PlanProposed(plan="1. look\n2. mend\n"))).splitlines() == [
        *("1. look", "2. mend", "▌ that is the plan"),
    ]
    assert shown(answer, said(t.PlanProposed(plan="3. leap"))).splitlines()[2:] == ["▌ the plan", "▌ 3. leap"]


def test_handing_a_plan_over_is_no_tool_that_failed() -> None:
    use = a.ToolUse(source_n=1, tool_use_id="p", tool_name="ExitPlanMode", input={"plan": "1. look"})
    held_back = a.ToolResult(source_n=1, tool_use_id="p", output="It is handed over.", is_error=True)
    end = said(a.AgentText(source_n=1, text="I wait."))
    assert shown(said(use), said(held_back), end, said(t.PlanProposed(plan="1. look"))).splitlines() == [
        *("I wait.", "▌ the plan", "▌ 1. look"),
    ]


def test_what_goes_on_is_told_in_a_few_words() -> None:
    view = TurnView("t1", "s1", colours=False, typed=True)
    told = [view.doing()]
    use = a.ToolUse(source_n=1, tool_use_id="a", tool_name="Bash", input={"command": "pytest -q"})
    other = a.ToolUse(source_n=1, tool_use_id="b", tool_name="Read", input={"file_path": "a.py"})
    within = a.ToolUse(source_n=1, parent="a", tool_use_id="c", tool_name="Grep", input={})
    usage = a.AgentUsage(source_n=1, usage=t.Usage(input_tokens=12_345, output_tokens=5))
    guess = a.AgentUsage(source_n=1, usage=t.Usage(input_tokens=9), provisional=True)
    done = a.ToolResult(source_n=1, tool_use_id="b")
    for event in (t.TurnStarted(exec="x"), use, other, within, done, usage, guess, t.TurnInterrupting()):
        view.text(said(event))
        told.append(view.doing())
    used = " · 12.3k in, 5 out"
    assert told == [
        *("waiting for the session", "working", "Bash pytest -q", "Read a.py (and 1 more)", "Read a.py (and 1 more)"),
        *("Bash pytest -q", f"Bash pytest -q{used}", f"Bash pytest -q{used}", f"interrupting{used}"),
    ]


def test_its_model_is_said_once_by_whoever_says_it_first() -> None:
    preparing = t.TurnPreparing(attempt=1, exec="x", incarnation=1, model="m")
    silent = a.RunStarted(source_n=1, agent="opencode")
    assert shown(said(preparing), said(silent), said(preparing)) == "· m\n"
    same, other = a.RunStarted(source_n=1, agent="c", model="m"), a.RunStarted(source_n=1, agent="c", model="n")
    assert shown(said(preparing), said(same), said(other), said(other)) == "· m\n· n\n"


def test_what_cost_nothing_has_no_price() -> None:
    failed = t.TurnFinished(status="failed", error="NO_PROVIDER", usage=t.Usage(cost_micro_usd=0))
    assert shown(said(failed)).splitlines() == ["■ failed in 0.0 s", "  NO_PROVIDER"]


def test_one_that_goes_on_from_others_may_wait_for_them() -> None:
    view = TurnView("t2", "s1", colours=False, typed=True)
    for conversation, waits in (("t2", False), ("t1", True)):
        view.text(said(t.TurnRequested(agent="codex", prompt="x", conversation_id=conversation)))
        assert ("a turn before" in view.doing()) == waits


def test_a_command_that_is_waited_for_is_no_task_beside_it() -> None:
    def use(name: str) -> TurnEntry:
        return said(a.ToolUse(source_n=1, tool_use_id=name, tool_name=name, input={}))

    def task(parent: str) -> list[TurnEntry]:
        began = a.TaskStarted(source_n=1, parent=parent, task_id="k", description="look")
        return [said(began), said(a.TaskSettled(source_n=1, parent=parent, task_id="k", status="completed"))]

    assert shown(use("Bash"), *task("Bash")) == "▸ Bash\n"
    assert shown(use("Agent"), *task("Agent")).splitlines()[1:] == ["│ · task began: look", "│ · task completed"]
    left = said(a.ToolResult(source_n=1, tool_use_id="Bash", output="it goes on"))
    assert "task completed" in shown(use("Bash"), left, *task("Bash"))


def test_a_line_that_is_typed_is_ended_before_anything_else_is_said() -> None:
    view = TurnView("t1", "s1", colours=False, typed=True)
    text = view.text(Typed("half a sen"))
    assert view.within_line
    text += view.text(Gap(CURSOR, "an event cannot be read"))
    assert text == "half a sen\n! an event cannot be read\n"
    assert not view.within_line


def test_what_a_later_version_says_is_passed_over() -> None:
    event = replace(said(t.TurnInterrupting()).event, data=Unknown(raw_type="turn.x", problem="?"))
    assert shown(TurnEntry(CURSOR, 1, event)) == ""


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x9b2J", "\r\n\x07"])
def test_nothing_steers_the_terminal(hostile: str) -> None:
    events: list[TurnItem] = [
        said(t.TurnRequested(agent=hostile, prompt=hostile + "x", conversation_id="c")),
        said(t.SteerQueued(message_id="m", text=hostile), actor=hostile),
        said(t.TurnInterrupting(), actor=hostile),
        said(t.PlanProposed(plan=hostile)),
        said(t.PlanApproved(next_turn=hostile), actor=hostile),
        said(t.PlanRejected(reason=hostile), actor=hostile),
        said(a.AgentResult(source_n=1, status="error", error=hostile)),
        said(t.TurnFinished(status="failed", error=hostile + "y")),
        Gap(CURSOR, hostile),
    ]
    view = TurnView("t1", hostile, colours=False, typed=True)
    view.text(said(a.ToolUse(source_n=1, tool_use_id="a", tool_name=hostile, input={"command": hostile})))
    text = shown(*events) + view.text(events[0]) + view.doing()
    assert not any(c != "\n" and not c.isprintable() for c in text), repr(text)


def test_the_table_has_every_model_and_their_sum() -> None:
    models = [
        ModelUse("claude-opus-5-5", 12, 1, t.Usage(input_tokens=1_234_567, output_tokens=40, cost_micro_usd=1_900)),
        ModelUse("small\x1b[2J", 1, 0, t.Usage(input_tokens=1, cache_read_input_tokens=1)),
    ]
    assert usage_table(models, t.Usage()) == [
        "model            calls      input  cached  output             cost",
        "claude-opus-5-5     12  1,234,567       0      40          $0.0019",
        "small\\x1b[2J         1          1       1       0  price not known",
        "in all              13  1,234,568       1      40  price not known",
        "1 of the calls failed",
    ]
    assert usage_table([], t.Usage(input_tokens=5, output_tokens=1, cost_micro_usd=2_000_000)) == [
        "model              calls  input  cached  output   cost",
        "as the agent says             5       0       1  $2.00",
    ]
    assert usage_table([], t.Usage()) == []


def test_times_money_and_counts_for_eyes() -> None:
    assert [duration(each) for each in (-1, 0.34, 9.99, 10, 61, 3600, 90_061)] == [
        *("0.0 s", "0.3 s", "10.0 s", "10 s", "1 min 01 s", "1 h 00 min", "1 d 1 h"),
    ]
    assert [dollars(each) for each in (0, 1_900, 1_234_567_890, None)] == [
        *("$0.0000", "$0.0019", "$1,234.57", "price not known"),
    ]
    assert [tokens(each) for each in (0, 9_999, 12_345, 1_250_000)] == ["0", "9,999", "12.3k", "1.2M"]
    assert [budget(each) for each in ("5", "$0.25", "0.000001", "1e3")] == [5_000_000, 250_000, 1, 1_000_000_000]
