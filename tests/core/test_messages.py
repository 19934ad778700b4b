"""The message that a chat product stores, from the agents' own recordings and from what no recording has."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sandreel_core.agent import Typed
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.messages import MAX_OUTPUT_CHARS, MAX_STEPS_BYTES, ChatMessage
from tests.support.recordings import RECORDINGS, Recording


def said(*events: object) -> Any:
    message = ChatMessage()
    for event in events:
        message.add(event)
    return msgspec.to_builtins(message.content())


def text(text: str, parent: str | None = None) -> a.AgentText:
    return a.AgentText(source_n=1, text=text, parent=parent)


def use(id: str, name: str = "Bash", parent: str | None = None, **given: str) -> a.ToolUse:
    return a.ToolUse(source_n=1, tool_use_id=id, tool_name=name, input=given, parent=parent)


def result(id: str, output: Any = "", parent: str | None = None, *, is_error: bool = False) -> a.ToolResult:
    return a.ToolResult(source_n=1, tool_use_id=id, output=output, is_error=is_error, parent=parent)


def end(final: str | None) -> a.AgentResult:
    return a.AgentResult(source_n=1, status="completed", final_text=final)


def test_without_tools_it_is_a_plain_string() -> None:
    assert said(text("One."), text("Two."), end("Two. \n")) == "One.\n\nTwo."
    assert said(end("Only at the end.")) == "Only at the end."
    assert said(text("One."), end("Two.")) == "One.\n\nTwo."
    assert said() == ""
    assert said(Typed("par"), t.Checkpoint(exec_n=1), a.AgentError(source_n=1, message="x"), end(" ")) == ""


def test_tools_are_parts_in_their_order_and_say_that_they_failed() -> None:
    assert said(
        text("I look."), use("u", command="ls"), result("u", "no", is_error=True), text("Done."), end("Done.")
    ) == [
        {"type": "text", "text": "I look."},
        {"type": "tool-call", "toolCallId": "u", "toolName": "Bash", "input": {"command": "ls"}},
        {"type": "tool-result", "toolCallId": "u", "toolName": "Bash", "output": "no", "isError": True},
        {"type": "text", "text": "Done."},
    ]


def test_an_output_has_16000_characters_at_most_with_the_remark() -> None:
    [_, exact] = said(use("u"), result("u", "x" * MAX_OUTPUT_CHARS))
    assert exact["output"] == "x" * MAX_OUTPUT_CHARS
    [_, cut] = said(use("u"), result("u", "x" * (MAX_OUTPUT_CHARS + 1)))
    assert len(cut["output"]) == MAX_OUTPUT_CHARS
    assert cut["output"].endswith("x… [16001 characters in all]")


def test_what_sub_agents_do_is_folded_under_the_main_agents_task() -> None:
    events = [use("a", "Task"), text("in a", "a"), use("b", "Task", "a"), text("in b", "b"), result("b", "b!", "a")]
    [_, done] = said(*events, result("a", "a!"))
    assert done["output"] == {
        "report": "a!",
        "steps": [
            {"type": "text", "depth": 1, "text": "in a"},
            {"type": "tool-call", "depth": 1, "toolCallId": "b", "toolName": "Task", "input": {}},
            {"type": "text", "depth": 2, "text": "in b"},
            {"type": "tool-result", "depth": 1, "toolCallId": "b", "toolName": "Task", "output": "b!"},
        ],
    }
    [_, cut_off] = said(*events)
    assert (cut_off["output"]["report"], len(cut_off["output"]["steps"])) == ("", 4)
    # A sub-agent that goes on in the background, after its tool has answered.
    [_, early] = said(use("a", "Task"), result("a", "started"), text("still at it", "a"))
    assert early["output"] == {"report": "started", "steps": [{"type": "text", "depth": 1, "text": "still at it"}]}


def test_depth_ends_at_eight_and_nothing_is_lost_beyond() -> None:
    chain = [use("t0", "Task"), *(use(f"t{i}", "Task", f"t{i - 1}") for i in range(1, 12))]
    [_, done] = said(*chain, text("deep", "t11"), result("t0"))
    assert [step["depth"] for step in done["output"]["steps"]] == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8]


def test_a_sub_agent_of_a_tool_that_nobody_announced_stands_for_itself() -> None:
    call, done = said(text("in x", "x"))
    assert call == {"type": "tool-call", "toolCallId": "x", "toolName": "", "input": None}
    assert done["output"]["steps"] == [{"type": "text", "depth": 1, "text": "in x"}]
    assert [part["type"] for part in said(result("y", "z"))] == ["tool-call", "tool-result"]


def test_steps_are_bounded_and_how_many_are_missing_is_told() -> None:
    events = [use("a", "Task"), *(text(f"{i:05}" + "é" * 500, "a") for i in range(400)), text("x", "a"), result("a")]
    [_, done] = said(*events)
    steps = done["output"]["steps"]
    assert len(msgspec.json.encode(steps)) <= MAX_STEPS_BYTES + 2
    assert done["output"]["truncatedSteps"] == 401 - len(steps) > 0
    assert [step["text"][:5] for step in steps] == [f"{i:05}" for i in range(len(steps))]


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda each: f"{each.agent}-{each.name}")
def test_every_recording_becomes_a_message_with_all_that_was_said_and_done(recording: Recording) -> None:
    items = recording.items()
    content = said(*items)
    main = [item.text for item in items if isinstance(item, a.AgentText) and item.parent is None]
    uses = [item for item in items if isinstance(item, a.ToolUse)]
    if not uses and not any(isinstance(item, a.ToolResult) for item in items):
        assert isinstance(content, str)
        assert all(each in content for each in main)
        return
    texts = [part["text"] for part in content if part["type"] == "text"]
    assert [each for each in texts if each in main] == main
    assert len(texts) <= len(main) + sum(isinstance(item, a.AgentResult) for item in items)
    calls = [part["toolCallId"] for part in content if part["type"] == "tool-call"]
    assert [each for each in calls if each in {use.tool_use_id for use in uses}] == [
        use.tool_use_id for use in uses if use.parent is None
    ]
    steps = [step for part in content if isinstance(part.get("output"), dict) for step in part["output"]["steps"]]
    nested = sum(isinstance(i, a.AgentText | a.ToolUse | a.ToolResult) and i.parent is not None for i in items)
    assert len(steps) == nested
    failed = {i.tool_use_id for i in items if isinstance(i, a.ToolResult) and i.is_error and i.parent is None}
    assert {part["toolCallId"] for part in content if part.get("isError")} == failed


def test_a_recorded_sub_agent_reports() -> None:
    [recording] = [each for each in RECORDINGS if (each.agent, each.name) == ("claude-code", "agent")]
    [folded] = [part for part in said(*recording.items()) if isinstance(part.get("output"), dict)]
    assert folded["output"]["report"]
    assert folded["output"]["steps"]
