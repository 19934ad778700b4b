"""When a message reaches an agent that is at work, and when its input may end."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandreel_bridge import steering as s
from sandreel_bridge.steering import Deliver, Delivery, EndInput, Loop, Message, Posture, Wait
from sandreel_core.agent import AgentItem, Typed
from sandreel_core.contract import turn as t
from tests.support.recordings import RECORDINGS, Recording

TURN = "t1"
A, B, C = (Message(id, f"say {id}") for id in "abc")


def tool(id: str, name: str, parent: str | None = None) -> t.ToolUse:
    return t.ToolUse(source_n=1, tool_use_id=id, tool_name=name, parent=parent)


def ended(id: str, parent: str | None = None) -> t.ToolResult:
    return t.ToolResult(source_n=1, tool_use_id=id, parent=parent)


def task(id: str) -> t.TaskStarted:
    return t.TaskStarted(source_n=1, task_id=id, parent="tool")


def settled(id: str) -> t.TaskSettled:
    return t.TaskSettled(source_n=1, task_id=id, parent="tool")


def text(parent: str | None = None) -> t.AgentText:
    return t.AgentText(source_n=1, text="x", parent=parent)


def result() -> t.AgentResult:
    return t.AgentResult(source_n=1, status="completed")


def lifecycle(uuid: str, state: str) -> t.AgentRaw:
    return t.AgentRaw(source_n=1, payload={"type": "command_lifecycle", "command_uuid": uuid, "state": state})


def loop(*items: AgentItem, at_s: float = 0.0) -> Loop:
    found = Loop(spoke_at_s=at_s)
    for item in items:
        found.take(item, at_s)
    return found


POSTURES: list[tuple[Posture, list[AgentItem]]] = [
    ("none", []),
    ("none", [text()]),
    ("none", [tool("1", "Bash")]),
    ("none", [tool("1", "Bash"), task("k")]),  # a foreground Bash is a task as well
    ("none", [tool("1", "TaskOutput")]),  # of nothing that is known to run
    ("none", [tool("1", "Task"), tool("2", "Bash")]),
    ("none", [task("k"), tool("1", "TaskOutput"), tool("2", "Bash")]),
    ("none", [task("k"), settled("k")]),
    ("background", [task("k")]),
    ("background", [tool("1", "Agent"), task("k"), ended("1"), text()]),
    ("background", [task("k"), tool("2", "Bash", parent="1")]),  # a sub-agent's tool is none of the main loop's
    ("waittool", [task("k"), tool("1", "TaskOutput")]),
    ("waittool", [task("k"), tool("1", "TaskOutput"), tool("2", "TaskOutput")]),
    ("subagent", [tool("1", "Task")]),
    ("subagent", [tool("1", "Agent"), tool("2", "Task")]),
    ("subagent", [tool("1", "Task"), task("k")]),
]


@pytest.mark.parametrize(("expected", "items"), POSTURES)
def test_postures_and_the_five_seconds_before_them(expected: Posture, items: list[AgentItem]) -> None:
    found = loop(*items, at_s=100.0)
    assert s.posture(found, 105.0) == expected
    assert s.posture(found, 104.999999) == "none"


def test_only_the_main_loop_breaks_the_silence() -> None:
    found = loop(tool("1", "Task"))
    for item in (task("k"), tool("2", "Bash", "1"), ended("2", "1"), text("1"), Typed("x", "1"), settled("k")):
        found.take(item, 4.0)
    assert s.posture(found, 5.0) == "subagent"
    found.take(Typed("x"), 4.0)
    assert s.posture(found, 8.999) == "none"
    assert s.posture(found, 9.0) == "subagent"


def test_a_busy_agent_hears_by_its_hook_and_an_idle_one_over_stdin() -> None:
    busy = loop(tool("1", "Bash"))
    assert s.step("hooked", busy, [A, B], [], 0.0) == Deliver(Delivery((A, B), "hook"))
    idle = loop(tool("1", "Agent"))
    assert s.step("hooked", idle, [A, B], [], 4.9) == Deliver(Delivery((A, B), "hook"))
    assert s.step("hooked", idle, [A, B], [], 5.0) == Deliver(Delivery((A, B), "stdin"))
    answered = loop(text(), result())
    assert s.step("hooked", answered, [A], [], 0.0) == Deliver(Delivery((A,), "stdin"))


def test_what_lies_for_the_hook_is_taken_back_when_the_agent_is_idle() -> None:
    found, lying = loop(tool("1", "Agent")), [Delivery((A,), "hook")]
    assert s.step("hooked", found, [], lying, 1.0) == Wait(for_s=4.0, look=True)
    assert s.step("hooked", found, [B], lying, 6.0) == Deliver(Delivery((A, B), "stdin"), taking_back=(A,))
    busy = loop(tool("1", "Bash"))
    assert s.step("hooked", busy, [], lying, 60.0) == Wait(look=True)


def test_an_agent_that_takes_messages_at_any_time_gets_them_at_once() -> None:
    assert s.step("open", loop(tool("1", "Bash")), [A], [], 0.0) == Deliver(Delivery((A,), "stdin"))
    assert s.step("open", loop(tool("1", "Bash")), [], [Delivery((A,), "stdin")], 9.0) == Wait()


def test_what_cannot_reach_an_agent_waits_for_the_next_turn_and_does_not_hold_this_one() -> None:
    assert s.step("boundary", loop(text()), [A], [], 9.0) == Wait()
    assert s.step("boundary", loop(result()), [A], [], 9.0) == EndInput()


@pytest.mark.parametrize(
    ("items", "queued", "delivered", "may"),
    [
        ([], [], [], False),
        ([text()], [], [], False),
        ([result()], [], [], True),
        ([result()], [A], [], False),
        ([result()], [], [Delivery((A,), "stdin")], False),
        ([result()], [], [Delivery((A,), "hook")], False),
        ([task("k"), result()], [], [], False),
        ([task("k"), result(), settled("k")], [], [], True),
        ([result(), text()], [], [], False),
        ([result(), t.RunStarted(source_n=1, agent="claude-code")], [], [], False),
        ([result(), tool("1", "Bash")], [], [], False),
        ([result(), text(parent="1")], [], [], True),
    ],
)
def test_the_input_ends_only_when_nothing_is_under_way(
    items: list[AgentItem], queued: list[Message], delivered: list[Delivery], may: bool
) -> None:
    assert s.may_end_input("hooked", loop(*items), queued, delivered) is may
    assert isinstance(s.step("hooked", loop(*items), queued, delivered, 0.0), EndInput) is may


def test_messages_travel_together_each_once_up_to_a_size() -> None:
    long = Message("l", "x" * s.MAX_COMBINED_BYTES)
    assert s.combined([A, B, A, C]) == (A, B, C)
    assert s.combined([long, A]) == (long,)
    assert s.combined([A, long, B]) == (A,)
    assert s.joined([A, B]) == "say a\n\nsay b"


def test_a_message_has_one_uuid_whoever_sends_it() -> None:
    assert s.message_uuid(TURN, ["a", "b"]) == s.message_uuid(TURN, ["a", "b"])
    assert (
        len({s.message_uuid(*each) for each in ((TURN, ["a", "b"]), (TURN, ["a"]), ("t2", ["a"]), (TURN, ["b"]))}) == 4
    )


def test_consumption_is_what_the_program_tells() -> None:
    over_stdin = [Delivery((A, B), "stdin"), Delivery((C,), "hook")]
    ours = s.message_uuid(TURN, ["a", "b"])
    found = loop(lifecycle(ours, "queued"))
    assert s.consumed(found, lifecycle(ours, "queued"), TURN, over_stdin) == []
    assert s.consumed(found, lifecycle(s.message_uuid(TURN, ["a"]), "started"), TURN, over_stdin) == []
    assert s.consumed(found, lifecycle(ours, "cancelled"), TURN, over_stdin) == []
    assert s.consumed(found, result(), TURN, over_stdin) == []
    for state in ("started", "completed"):
        assert s.consumed(found, lifecycle(ours, state), TURN, over_stdin) == ["a", "b"]
    # Of a program that tells nothing the end of its answer is the sign.
    assert s.consumed(loop(), text(), TURN, over_stdin) == []
    assert s.consumed(loop(), result(), TURN, over_stdin) == ["a", "b"]
    assert s.consumed(loop(), result(), TURN, []) == []


def test_what_the_hook_took_is_seen_by_the_name() -> None:
    odd = Message("m-1_x", "say")
    assert s.file_path("e1", 7, odd) == ".sandreel/steer/e1/steer-000000000000007-m-1_x.json"
    names = [
        "consumed.steer-000000000000007-m-1_x.json",
        "steer-000000000000008-a.json",
        "consumed.other",
        "consumed.steer-.json",
    ]
    assert s.taken_by_hook(names, [odd, A]) == ["m-1_x"]
    assert s.left_over([C], [Delivery((odd, A), "hook"), Delivery((B,), "stdin")], names) == ["a", "b", "c"]


CLAUDE = [each for each in RECORDINGS if each.agent == "claude-code"]


@pytest.mark.parametrize("recording", CLAUDE, ids="/".join)
def test_in_no_recording_would_the_input_have_ended_too_early(recording: Recording) -> None:
    """After the end of input the program finishes what it has begun: a new run or a task behind it would be cut off."""
    found, ends = Loop(spoke_at_s=0.0), None
    for index, item in enumerate(items := recording.items()):
        found.take(item, float(index))
        if ends is None and isinstance(s.step("hooked", found, [], [], float(index)), EndInput):
            ends = index
    if ends is not None and recording.name not in SEVERAL_PROMPTS:
        assert not any(isinstance(item, t.ToolUse | t.TaskStarted | t.RunStarted) for item in items[ends:])
    if any(isinstance(item, t.AgentResult) and item.status == "completed" for item in items):
        assert ends is not None


# Whoever recorded these wrote a second message after the first answer.
SEVERAL_PROMPTS = frozenset({"stdin_two_turns", "stdin_steer_slow", "stdin_interrupt_control"})


def test_where_a_loop_stands_is_plain_data() -> None:
    found = loop(tool("1", "Task"), task("k"), lifecycle("u", "queued"), at_s=3.0)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Loop) == found


def test_what_never_ends_does_not_grow_without_bound() -> None:
    found = loop(*(tool(str(number), "Bash") for number in range(3000)), *(task(str(number)) for number in range(3000)))
    assert len(found.tools) <= 1024
    assert len(found.tasks) <= 1024


# What can happen around a step, as (what, how many seconds later).
_HAPPENS = st.lists(
    st.tuples(
        st.sampled_from(
            ["say", "bash", "agent", "task", "end", "settle", "text", "result", "hook", "read", "nothing", "die"]
        ),
        st.sampled_from([0.0, 1.0, 5.0]),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(happens=_HAPPENS, way=st.sampled_from(["hooked", "open", "boundary"]))
def test_every_message_is_read_once_or_is_left_over(happens: list[tuple[str, float]], way: Any) -> None:
    """An agent, its hook and a bridge that dies between any two of its acts, all as they please."""
    now_s, numbers, found = 0.0, itertools.count(), Loop(spoke_at_s=0.0)
    queued: list[Message] = []
    delivered: list[Delivery] = []
    lying: list[Message] = []  # for the hook
    marks: list[str] = []
    piped: dict[str, Delivery] = {}  # by UUID: a program takes each once
    told: list[str] = []
    said: list[str] = []

    def forget(ids: list[str]) -> None:
        told.extend(ids)
        left = [Delivery(tuple(m for m in each.messages if m.id not in ids), each.channel) for each in delivered]
        delivered[:] = [each for each in left if each.messages]

    for what, later_s in happens:
        now_s += later_s
        match what:
            case "say" if len(queued) + sum(len(each.messages) for each in delivered) < s.MAX_QUEUED:
                said.append(f"m{next(numbers)}")
                queued.append(Message(said[-1], "x" * 4000))
            case "bash" | "agent":
                found.take(tool(f"u{next(numbers)}", what.title()), now_s)
            case "end" if found.tools:
                found.take(ended(next(iter(found.tools))), now_s)
            case "task":
                found.take(task(f"k{next(numbers)}"), now_s)
            case "settle" if found.tasks:
                found.take(settled(next(iter(found.tasks))), now_s)
            case "text":
                found.take(text(), now_s)
            case "result" if not piped:
                found.take(result(), now_s)
            case "hook" if lying:
                marks.append(f"consumed.steer-000000000000001-{lying.pop(0).id}.json")
            case "read" if piped:
                uuid = next(iter(piped))
                del piped[uuid]
                item = lifecycle(uuid, "started")
                forget(s.consumed(found, item, TURN, delivered))
                found.take(item, now_s)
        if way == "hooked":
            forget(s.taken_by_hook(marks, [m for each in delivered if each.channel == "hook" for m in each.messages]))
        step = s.step(way, found, queued, delivered, now_s)
        if isinstance(step, Deliver):
            for each in step.taking_back:
                if each in lying:
                    lying.remove(each)
            if what == "die":
                continue  # before it is written down: all is found as it was, but what was taken back
            handed = step.delivery
            queued[:] = [message for message in queued if message.id not in handed.ids]
            left = [
                Delivery(tuple(m for m in each.messages if m not in handed.messages), each.channel)
                for each in delivered
            ]
            delivered[:] = [*(each for each in left if each.messages), handed]
            if handed.channel == "hook":
                lying.extend(handed.messages)
            else:
                piped[s.message_uuid(TURN, handed.ids)] = handed
        elif isinstance(step, EndInput):
            assert not (way != "boundary" and (queued or delivered))
            assert found.result_seen
            assert not found.tasks
    left_over = s.left_over(queued, delivered, marks)
    assert sorted([*told, *left_over, *(m for m in said if m in _taken(marks) and m not in told)]) == sorted(said)
    assert len(told) == len(set(told))


def _taken(marks: list[str]) -> set[str]:
    return {mark.removesuffix(".json").rpartition("-")[2] for mark in marks}
