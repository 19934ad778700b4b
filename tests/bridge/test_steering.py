"""When a message reaches an agent that is at work, and when its input may end."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandreel_bridge import steering as s
from sandreel_bridge.control import Told, due
from sandreel_bridge.steering import Deliver, Delivery, Heard, Message, Posture, Wait
from sandreel_core.agent import AgentItem, Typed
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from sandreel_core.turn import Turn
from tests.support.recordings import RECORDINGS, Recording
from tests.support.turns import RUNNING, folded

NAME = "t1"
A, B, C = (Message(id, f"say {id}", number) for number, id in enumerate("abc", 1))


def tool(id: str, name: str, parent: str | None = None) -> a.ToolUse:
    return a.ToolUse(source_n=1, tool_use_id=id, tool_name=name, parent=parent)


def ended(id: str, parent: str | None = None) -> a.ToolResult:
    return a.ToolResult(source_n=1, tool_use_id=id, parent=parent)


def task(id: str) -> a.TaskStarted:
    return a.TaskStarted(source_n=1, task_id=id, parent="tool")


def settled(id: str) -> a.TaskSettled:
    return a.TaskSettled(source_n=1, task_id=id, parent="tool")


def text(parent: str | None = None) -> a.AgentText:
    return a.AgentText(source_n=1, text="x", parent=parent)


def result() -> a.AgentResult:
    return a.AgentResult(source_n=1, status="completed")


def lifecycle(uuid: str, state: str) -> a.AgentRaw:
    return a.AgentRaw(source_n=1, payload={"type": "command_lifecycle", "command_uuid": uuid, "state": state})


def queued(*messages: Message) -> list[t.SteerQueued]:
    return [t.SteerQueued(message_id=each.id, text=each.text) for each in messages]


def handed(channel: s.Channel, *messages: Message) -> t.SteerDelivered:
    return t.SteerDelivered(message_ids=[each.id for each in messages], channel=channel)


def turn(*events: t.TurnEvent | AgentItem) -> Turn:
    """One whose program runs, and of which the log says this."""
    return folded(*RUNNING, *(each for each in events if not isinstance(each, Typed)))


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
    assert s.posture(turn(*items).run, 5.0) == expected
    assert s.posture(turn(*items).run, 4.999999) == "none"


def test_only_the_main_loop_breaks_the_silence() -> None:
    others: list[AgentItem] = [task("k"), tool("2", "Bash", "1"), ended("2", "1"), text("1"), settled("k")]
    others += [Typed("x", "1"), lifecycle("u", "queued")]
    signs: list[AgentItem] = [tool("1", "Task"), text(), Typed("x"), result(), a.AgentRaw(source_n=1)]
    assert not any(s.breaks_the_silence(item) for item in others)
    assert all(s.breaks_the_silence(item) for item in signs)


def test_a_busy_agent_hears_by_its_hook_and_an_idle_one_over_stdin() -> None:
    busy = turn(tool("1", "Bash"), *queued(A, B))
    assert s.step("hooked", busy, 99.0) == Deliver(Delivery((A, B), "hook"))
    delegating = turn(tool("1", "Agent"), *queued(A, B))
    assert s.step("hooked", delegating, 4.9) == Deliver(Delivery((A, B), "hook"))
    assert s.step("hooked", delegating, 5.0) == Deliver(Delivery((A, B), "stdin"))
    answered = turn(text(), result(), *queued(A))
    assert s.step("hooked", answered, 0.0) == Deliver(Delivery((A,), "stdin"))
    assert s.step("hooked", answered, 0.0, input_open=False) == Deliver(Delivery((A,), "hook"))


def test_what_lies_for_the_hook_is_taken_back_when_the_agent_is_idle() -> None:
    lying = turn(tool("1", "Agent"), *queued(A), handed("hook", A))
    assert s.step("hooked", lying, 1.0) == Wait(for_s=4.0, look=True)
    assert s.step("hooked", lying, 6.0) == Deliver(Delivery((A,), "stdin"), taking_back=(A,))
    more = turn(tool("1", "Agent"), *queued(A, B), handed("hook", A))
    assert s.step("hooked", more, 6.0) == Deliver(Delivery((A, B), "stdin"), taking_back=(A,))
    busy = turn(tool("1", "Bash"), *queued(A), handed("hook", A))
    assert s.step("hooked", busy, 60.0) == Wait(look=True)
    read = turn(tool("1", "Agent"), *queued(A), handed("hook", A), t.SteerConsumed(message_ids=["a"]))
    assert s.step("hooked", read, 6.0) == Wait()


def test_an_agent_that_takes_messages_at_any_time_gets_them_at_once() -> None:
    assert s.step("open", turn(tool("1", "Bash"), *queued(A)), 0.0) == Deliver(Delivery((A,), "stdin"))
    assert s.step("open", turn(tool("1", "Bash"), *queued(A), handed("stdin", A)), 9.0) == Wait()
    assert s.step("open", turn(tool("1", "Bash"), *queued(A)), 0.0, input_open=False) == Wait()


@pytest.mark.parametrize("way", ["hooked", "open", "boundary"])
def test_what_cannot_reach_an_agent_waits(way: s.Way) -> None:
    interrupted = turn(tool("1", "Agent"), *queued(A), t.TurnInterrupting())
    assert s.step(way, interrupted, 9.0) == Wait()
    assert s.step("boundary", turn(result(), *queued(A)), 9.0) == Wait()


@pytest.mark.parametrize(
    ("events", "may"),
    [
        ([], False),
        ([text()], False),
        ([result()], True),
        ([result(), *queued(A)], False),
        ([result(), *queued(A), handed("stdin", A)], False),
        ([result(), *queued(A), handed("hook", A)], False),
        ([result(), *queued(A), handed("hook", A), t.SteerConsumed(message_ids=["a"])], True),
        ([task("k"), result()], False),
        ([task("k"), result(), settled("k")], True),
        ([result(), text()], False),
        ([result(), a.RunStarted(source_n=1, agent="claude-code")], False),
        ([result(), lifecycle("u", "queued")], True),
        ([result(), lifecycle("u", "started")], False),
        ([result(), lifecycle("u", "completed")], True),
        ([result(), tool("1", "Bash")], False),
        ([result(), text(parent="1")], True),
    ],
)
def test_the_input_ends_only_when_nothing_is_under_way(events: list[t.TurnEvent], may: bool) -> None:
    action, _ = due(turn(*events), Told(), at_s=0.0, holds_stdin=True, has_protocol=True)
    assert action == ("eof" if may else None)


def test_messages_travel_together_each_once_up_to_a_size() -> None:
    long = Message("l", "x" * s.MAX_COMBINED_BYTES)
    assert s.combined([A, B, A, C]) == (A, B, C)
    assert s.combined([long, A]) == (long,)
    assert s.combined([A, long, B]) == (A,)
    assert s.joined([A, B]) == "say a\n\nsay b"


def test_a_message_has_one_uuid_whoever_sends_it() -> None:
    assert s.message_uuid(NAME, ["a", "b"]) == s.message_uuid(NAME, ["a", "b"])
    different = ((NAME, ["a", "b"]), (NAME, ["a"]), ("t2", ["a"]), (NAME, ["b"]))
    assert len({s.message_uuid(*each) for each in different}) == 4


def test_consumption_is_what_the_program_tells() -> None:
    events = (*queued(A, B, C), handed("stdin", A, B), handed("hook", C))
    ours = s.message_uuid(NAME, ["a", "b"])
    telling = turn(*events, lifecycle("prompt", "started"))
    assert s.deliveries(telling) == [Delivery((A, B), "stdin"), Delivery((C,), "hook")]
    assert s.heard(telling, NAME, lifecycle(ours, "queued")) == Heard()
    assert s.heard(telling, NAME, lifecycle(s.message_uuid(NAME, ["a"]), "started")) == Heard()
    assert s.heard(telling, NAME, lifecycle(ours, "cancelled")) == Heard(refused=("a", "b"))
    assert s.heard(telling, NAME, result()) == Heard()
    for state in ("started", "completed"):
        assert s.heard(telling, NAME, lifecycle(ours, state)) == Heard(consumed=("a", "b"))
    # Of a program that tells nothing the end of its answer is the sign.
    assert s.heard(turn(*events), NAME, text()) == Heard()
    assert s.heard(turn(*events), NAME, result()) == Heard(consumed=("a", "b"))
    assert s.heard(turn(*queued(A)), NAME, result()) == Heard()


def test_what_the_hook_took_is_seen_by_the_name() -> None:
    odd = Message("m-1_x", "say", 1)
    found = turn(*queued(odd, A, B), handed("hook", odd, A, B))
    assert s.file_name(odd) == "steer-000000000000001-m-1_x.json"
    names = {"consumed.steer-000000000000001-m-1_x.json", "steer-000000000000002-a.json", "consumed.other"}
    assert s.taken_by_hook(names, found) == ["m-1_x"]
    assert [each.id for each in s.missing_for_hook(names, found)] == ["b"]


CLAUDE = [each for each in RECORDINGS if each.agent == "claude-code"]


@pytest.mark.parametrize("recording", CLAUDE, ids="/".join)
def test_in_no_recording_would_the_input_have_ended_too_early(recording: Recording) -> None:
    """After the end of input the program finishes what it has begun: a new run or a task behind it would be cut off."""
    items = [item for item in recording.items() if not isinstance(item, Typed)]
    found, ends = turn(), None
    for index, item in enumerate(items):
        found = folded(item, turn=found)
        action, _ = due(found, Told(), at_s=0.0, holds_stdin=True, has_protocol=True)
        if action == "eof" and ends is None:
            ends = index
    if ends is not None and recording.name not in SEVERAL_PROMPTS:
        assert not any(isinstance(item, a.ToolUse | a.TaskStarted | a.RunStarted) for item in items[ends:])
    if any(isinstance(item, a.AgentResult) and item.status == "completed" for item in items):
        assert ends is not None


# Whoever recorded these wrote a second message after the first answer.
SEVERAL_PROMPTS = frozenset({"stdin_two_turns", "stdin_steer_slow", "stdin_interrupt_control"})


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


@settings(max_examples=200, deadline=None)
@given(happens=_HAPPENS, way=st.sampled_from(["hooked", "open", "boundary"]))
def test_every_message_is_read_once_or_is_left_over(happens: list[tuple[str, float]], way: Any) -> None:
    """An agent, its hook and a bridge that dies between any two of its acts, all as they please."""
    numbers, quiet_s, found = itertools.count(), 0.0, turn(lifecycle("prompt", "started"))
    lying: list[str] = []  # for the hook, by their names
    marks: set[str] = set()
    piped: list[str] = []  # UUIDs: a program takes each once
    told: list[str] = []
    sent: list[str] = []

    def say(event: t.TurnEvent) -> None:
        nonlocal found, quiet_s
        if isinstance(event, a.AgentEvent):
            read = s.heard(found, NAME, event).consumed
            told.extend(read)
            quiet_s = 0.0 if s.breaks_the_silence(event) else quiet_s
            if read:
                found = folded(t.SteerConsumed(message_ids=list(read)), turn=found)
        found = folded(event, turn=found)

    for what, later_s in happens:
        quiet_s += later_s
        match what:
            case "say" if len(found.waiting) < 10:
                sent.append(f"m{next(numbers)}")
                say(t.SteerQueued(message_id=sent[-1], text="x" * 4000))
            case "bash" | "agent":
                say(tool(f"u{next(numbers)}", what.title()))
            case "end" if found.run.tools:
                say(ended(next(iter(found.run.tools))))
            case "task":
                say(task(f"k{next(numbers)}"))
            case "settle" if found.run.tasks:
                say(settled(found.run.tasks[0]))
            case "text":
                say(text())
            case "result" if not piped:
                say(result())
            case "hook" if lying:
                marks.add(f"{s.TAKEN}{lying.pop(0)}")
            case "read" if piped:
                say(lifecycle(piped.pop(0), "started"))
        if taken := s.taken_by_hook(marks, found):
            told.extend(taken)
            say(t.SteerConsumed(message_ids=taken))
        step = s.step(way, found, quiet_s)
        if isinstance(step, Deliver):
            lying = [name for name in lying if name not in map(s.file_name, step.taking_back)]
            if what == "die":
                continue  # before it is written down: all is found as it was, but what was taken back
            ids = step.delivery.ids
            say(t.SteerDelivered(message_ids=ids, channel=step.delivery.channel))
            if step.delivery.channel == "hook":
                lying.extend(map(s.file_name, step.delivery.messages))
            else:
                piped.append(s.message_uuid(NAME, ids))
        elif step.look:
            lying.extend(map(s.file_name, s.missing_for_hook({*lying, *marks}, found)))
    assert sorted([*told, *found.waiting]) == sorted(sent)
