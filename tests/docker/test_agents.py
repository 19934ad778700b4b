"""The real programs of all four agents, each in a container, through the bridge and the gateway, before a stand-in of their models."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from sandreel_bridge.steering import QUIET_IDLE_S, breaks_the_silence
from sandreel_core.clock import now
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import encode
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.turn import Usage
from sandreel_core.messages import output_text
from sandreel_core.turn import Turn, derived_id, summed
from tests.support.bridges import texts
from tests.support.model_api import Call, Delegate, Failure, Reply, Script, Shell, Write, by_prompt, steps
from tests.support.model_api.asked import Asked
from tests.support.model_api.script import last_prompt
from tests.support.real_agents import PROVIDER_KEY, RealAgents, missing, open_agents, status, using_a_tool
from tests.support.system import ORG, until

CLAUDE, OPENCODE = ("claude-code", "claude-sonnet-4-5"), ("opencode", "gpt-5-mini")
# Of these the program takes one prompt, and ends.
CODEX, GEMINI = ("codex", "gpt-5-mini"), ("gemini-cli", "gemini-3-flash-preview")
PLAN = "1. Look. 2. Leave."
# What is said to the agent, and what its model does then.
RULES: dict[str, list[Reply | Failure | str]] = {
    "what is here": [Reply("I look.", Shell("echo from-the-tool; git --version")), "It is all there."],
    "wait for it": [Reply(Shell("sleep 6; echo waited")), "I waited."],
    "wait for the word": [
        Reply("I wait.", Shell("until test -e ../word; do sleep 0.1; done; cat ../word")),
        "I have it.",
    ],
    "and say banana": ["banana"],
    # Claude Code lets nothing sleep for long before its eyes.
    "hang on": [Reply("I hang on.", Shell("tail -f /dev/null"))],
    "ask somebody": [Reply(Delegate("hang on")), "Somebody looks."],
    "make a plan": [Reply(Call("ExitPlanMode", {"plan": PLAN})), "I wait for you."],
    PLAN: ["I carry it out."],
    "think aloud": ["1. Think."],
}

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("docker"),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
every_agent = pytest.mark.parametrize(("agent", "model"), [CLAUDE, OPENCODE, CODEX, GEMINI])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agents() -> AsyncIterator[RealAgents]:
    async with open_agents(by_prompt(RULES, steps("Hello."))) as agents:
        yield agents


async def agrees(agents: RealAgents, session: str, turn: str, found: Turn, *, calls: int) -> None:
    """What the agent says that it used is what the gateway has counted, over so many calls."""
    counted = await agents.counted(session, turn)
    assert len(counted) == calls
    assert all(each.usage.cost_micro_usd for each in counted)
    assert found.finished is not None
    assert tokens(found.finished.usage) == tokens(summed(each.usage for each in counted))


def keeps_the_provider_s_key(agents: RealAgents, events: list[Envelope]) -> None:
    """The provider's key is the gateway's, which has put it in the place of the turn's own."""
    asked = [seen for seen in agents.api.seen if seen.asked is not None]
    assert all(PROVIDER_KEY in "".join(seen.headers.values()) for seen in asked)
    assert PROVIDER_KEY.encode() not in b"".join(encode(event) for event in events)


def tokens(usage: Usage) -> tuple[int, int]:
    return usage.input_tokens, usage.output_tokens


@pytest.mark.parametrize(("agent", "model"), [CLAUDE, OPENCODE])
async def test_a_turn_of_the_real_program(agents: RealAgents, agent: str, model: str) -> None:
    session, turn = await agents.start("what is here", agent=agent, model=model)
    found = await agents.ended(session, turn)
    assert status(found) == "success", found.finished
    events = await agents.events(session, turn)
    assert texts(events) == ["I look.", "It is all there."]
    [result] = [event.data for event in events if isinstance(event.data, a.ToolResult)]
    assert "from-the-tool" in output_text(result.output)
    assert "git version" in output_text(result.output)
    await agrees(agents, session, turn, found, calls=2)
    keeps_the_provider_s_key(agents, events)


@pytest.mark.parametrize(("agent", "model"), [CODEX, GEMINI])
async def test_what_is_said_to_a_program_that_takes_one_prompt_opens_the_next_turn(
    agents: RealAgents, agent: str, model: str
) -> None:
    session, turn = await agents.start("wait for the word", agent=agent, model=model)
    await agents.until(session, turn, using_a_tool)
    assert texts(await agents.events(session, turn)) == ["I wait."]  # while its tool runs
    await agents.client.send(ORG, session, c.Steer(turn=turn, message_id="m1", text="and say banana"))
    await agents.client.files(ORG, session).write("word", b"the word\n")
    first = await agents.ended(session, turn)
    assert status(first) == "success", first.finished
    events = await agents.events(session, turn)
    assert texts(events) == ["I wait.", "I have it."]
    [result] = [event.data for event in events if isinstance(event.data, a.ToolResult)]
    assert ("the word" in output_text(result.output), result.is_error) == (True, False)
    keeps_the_provider_s_key(agents, events)
    assert await agents.story(session, turn) == ["requeued m1"]
    await agrees(agents, session, turn, first, calls=2)

    following = derived_id(turn, "next")
    second = await agents.ended(session, following)
    assert status(second) == "success", second.finished
    assert texts(await agents.events(session, following)) == ["banana"]
    # The conversation goes on, and what is counted is this turn's alone, though Codex counts by conversation.
    said = [item.text for item in agents.api.seen[-1].asked.items] if agents.api.seen[-1].asked else []
    assert [text for text in said if text in ("wait for the word", "I have it.", "and say banana")] == [
        *("wait for the word", "I have it.", "and say banana"),
    ]
    await agrees(agents, session, following, second, calls=1)


async def test_what_is_said_in_mid_tool_reaches_claude_by_its_hook(agents: RealAgents) -> None:
    session, turn = await agents.start("wait for it", model=CLAUDE[1])
    await agents.until(session, turn, using_a_tool)
    await agents.client.send(ORG, session, c.Steer(turn=turn, message_id="m1", text="and say banana"))
    found = await agents.ended(session, turn)
    assert status(found) == "success", found.finished
    assert texts(await agents.events(session, turn)) == ["banana"]
    assert await agents.story(session, turn) == ["hook m1", "consumed m1"]


async def test_while_only_a_sub_agent_works_claude_hears_over_stdin_and_an_interrupt_ends_all(
    agents: RealAgents,
) -> None:
    session, turn = await agents.start("ask somebody", model=CLAUDE[1])
    await agents.until(session, turn, lambda turn: bool(turn.run.tasks))
    await until(lambda: agents.runs(session, "tail -f"), "the sub-agent's tool runs", timeout_s=60)
    # A hook that still runs at the end of what it says itself would hear the message first.
    await until(lambda: _is_quiet(agents, session, turn), "its main loop has been silent for 5 s")
    await agents.client.send(ORG, session, c.Steer(turn=turn, message_id="m1", text="and say banana"))
    await agents.until(session, turn, lambda turn: not turn.waiting and bool(turn.messages))
    assert (await agents.story(session, turn))[-2:] == ["stdin m1", "consumed m1"]
    await agents.client.send(ORG, session, c.Interrupt(turn=turn))
    assert status(await agents.ended(session, turn)) == "cancelled"


async def _is_quiet(agents: RealAgents, session: str, turn: str) -> bool:
    events = await agents.events(session, turn)
    signs = [each.time for each in events if isinstance(each.data, a.AgentEvent) and breaks_the_silence(each.data)]
    return "Somebody looks." in texts(events) and now() - signs[-1] > timedelta(seconds=QUIET_IDLE_S)


async def test_opencode_hears_in_mid_tool_over_stdin(agents: RealAgents) -> None:
    agent, model = OPENCODE
    session, turn = await agents.start("wait for it", agent=agent, model=model)
    await agents.until(session, turn, using_a_tool)
    await agents.client.send(ORG, session, c.Steer(turn=turn, message_id="m1", text="and say banana"))
    found = await agents.ended(session, turn)
    assert status(found) == "success", found.finished
    assert texts(await agents.events(session, turn)) == ["banana"]
    assert await agents.story(session, turn) == ["stdin m1", "consumed m1"]


@every_agent
async def test_an_interrupt_with_a_running_tool_leaves_no_process(agents: RealAgents, agent: str, model: str) -> None:
    session, turn = await agents.start("hang on", agent=agent, model=model)
    await agents.until(session, turn, using_a_tool)
    await until(lambda: agents.runs(session, "tail -f"), "the tool runs", timeout_s=60)
    await agents.client.send(ORG, session, c.Interrupt(turn=turn))
    assert status(await agents.ended(session, turn)) == "cancelled"


async def test_a_bridge_that_is_killed_in_mid_turn_is_no_seam(agents: RealAgents) -> None:
    session, turn = await agents.start("wait for it", model=CLAUDE[1])
    await agents.until(session, turn, using_a_tool)
    await agents.site.kill("bridge")
    found = await agents.ended(session, turn)
    assert status(found) == "success", found.finished
    events = await agents.events(session, turn)
    assert texts(events) == ["I waited."]
    assert sum(isinstance(event.data, a.ToolUse | a.ToolResult) for event in events) == 2
    assert sum(isinstance(event.data, a.AgentResult) for event in events) == 1


async def test_a_plan_is_proposed_and_carried_out_when_it_is_approved(agents: RealAgents) -> None:
    session, turn = await agents.start("make a plan", model=CLAUDE[1], permission_mode="plan")
    found = await agents.ended(session, turn)
    assert status(found) == "plan", found.finished
    assert found.proposed == PLAN
    goes_on = (await agents.client.send(ORG, session, c.Approve(turn=turn))).data.next_turn
    following = await agents.ended(session, goes_on)
    assert status(following) == "success", following.finished
    assert "I carry it out." in texts(await agents.events(session, goes_on))
    # The program offers its model no such tool by itself: then its answer is the plan, if it wrote none to the file for it.
    answered = await agents.ended(*await agents.start("think aloud", model=CLAUDE[1], permission_mode="plan"))
    assert (status(answered), answered.proposed) == ("plan", "1. Think.")


async def test_gemini_does_not_approve_its_own_plan(agents: RealAgents) -> None:
    """Where nobody can be asked its rules would let it, and then act."""
    agent, model = GEMINI
    agents.api.script, otherwise = _plans_and_acts(agents.api.script), agents.api.script
    try:
        session, turn = await agents.start("leave it as it is", agent=agent, model=model, permission_mode="plan")
        found = await agents.ended(session, turn)
    finally:
        agents.api.script = otherwise
    assert (status(found), found.proposed) == ("plan", PLAN), found.finished
    results = [event.data for event in await agents.events(session, turn) if isinstance(event.data, a.ToolResult)]
    assert [result.is_error for result in results] == [True, False, True, True], "only its plan is written"
    assert "acted.txt" not in [entry.name async for entry in agents.client.files(ORG, session).entries("repo")]


def _plans_and_acts(otherwise: Script) -> Script:
    """Its answers to the prompt of the test above: it finds out where plans go, writes one, and wants to go on to the work."""

    def script(asked: Asked) -> Reply | Failure:
        prompt = last_prompt(asked)
        if "leave it as it is" not in asked.items[prompt].text:
            return otherwise(asked)
        said = " ".join(item.text for item in asked.items)
        folder = re.search(r"plans directory \((\S+)\)", said)
        steps = [
            Reply(Write("acted.txt", "x")),
            Reply(Call("write_file", {"file_path": f"{folder[1] if folder else ''}/p.md", "content": PLAN})),
            Reply(Call("exit_plan_mode", {"plan_filename": "p.md"})),
            Reply(Write("acted.txt", "x")),
            Reply(PLAN),
        ]
        return steps[min(asked.rounds_after(prompt), 4)]

    return script
