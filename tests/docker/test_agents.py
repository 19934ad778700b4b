"""The real Claude Code and OpenCode, each in a container, through the bridge and the gateway, before a stand-in of their models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from sandreel_bridge.steering import QUIET_IDLE_S, breaks_the_silence
from sandreel_core.clock import now
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import decode_event, encode
from sandreel_core.contract.usage import UsageRecorded
from sandreel_core.images import Kind, image
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.docker_plan import container_name
from sandreel_core.turn import Turn, derived_id
from tests.support import engine
from tests.support.bridges import Turns, texts
from tests.support.contained import open_contained_site
from tests.support.engine import docker
from tests.support.memory_gateway import MemoryGateway
from tests.support.model_api import Call, Delegate, Failure, ModelApi, Reply, Shell, by_prompt, steps
from tests.support.model_api.asked import text_of
from tests.support.system import ORG, Site, until

IMAGES: tuple[Kind, ...] = ("session-agents", "roles")
PROVIDER_KEY = "provider-key-of-the-operator"
CLAUDE, OPENCODE = ("claude-code", "claude-sonnet-4-5"), ("opencode", "gpt-5-mini")
PLAN = "1. Look. 2. Leave."
# What is said to the agent, and what its model does then.
RULES: dict[str, list[Reply | Failure | str]] = {
    "what is here": [Reply("I look.", Shell("echo from-the-tool; git --version")), "It is all there."],
    "wait for it": [Reply(Shell("sleep 6; echo waited")), "I waited."],
    "and say banana": ["banana"],
    # Claude Code lets nothing sleep for long before its eyes.
    "hang on": [Reply("I hang on.", Shell("tail -f /dev/null"))],
    "ask somebody": [Reply(Delegate("hang on")), "Somebody looks."],
    "make a plan": [Reply(Call("ExitPlanMode", {"plan": PLAN})), "I wait for you."],
    PLAN: ["I carry it out."],
}


pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("docker"),
    pytest.mark.skipif(engine.missing(*IMAGES) is not None, reason=str(engine.missing(*IMAGES))),
]


class Agents(Turns):
    """Turns of real programs. `api`: their model."""

    def __init__(self, site: Site, api: ModelApi) -> None:
        super().__init__(site, MemoryGateway(), Path())
        self.api = api

    def processes(self, session: str) -> list[str]:
        """Command lines of what runs in its container, but for runnerd."""
        name = container_name(self.site.stack.place.keys().installation, Key(ORG, session), "1-1")
        found = docker("top", name, "-eo", "pid,args").splitlines()[1:]
        return [each for each in found if "sandreel_runnerd" not in each]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agents() -> AsyncIterator[Agents]:
    async with opened() as agents:
        yield agents


@asynccontextmanager
async def opened() -> AsyncGenerator[Agents, None]:
    # Where a container in the engine's own network finds this machine.
    here = docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}")
    async with ModelApi(by_prompt(RULES, steps("Hello.")), host=here) as api:
        settings = {
            "SANDREEL_DOCKER_IMAGE": image("session-agents"),
            "SANDREEL_GATEWAY_ANTHROPIC_API_KEY": PROVIDER_KEY,
            "SANDREEL_GATEWAY_ANTHROPIC_URL": api.url,
            "SANDREEL_GATEWAY_OPENAI_API_KEY": PROVIDER_KEY,
            "SANDREEL_GATEWAY_OPENAI_URL": api.url,
        }
        async with open_contained_site(**settings) as site:
            yield Agents(site, api)


def status(turn: Turn) -> str | None:
    assert turn.finished is not None
    return turn.finished.status


def using_a_tool(turn: Turn) -> bool:
    return bool(turn.run.tools)


async def usage(agents: Agents, session: str) -> list[UsageRecorded]:
    """What the gateway has counted."""
    subjects = agents.client.subjects(ORG, session)
    subject, found = subjects.event("usage"), list[UsageRecorded]()
    async with aclosing(agents.client.bus.follow(subjects.stream, [subject], live=False)) as items:
        async for item in items:
            data = [decode_event(subject, stored.body).data for stored in (item if isinstance(item, list) else ())]
            found += [each for each in data if isinstance(each, UsageRecorded)]
    return found


async def story(agents: Agents, session: str, turn: str) -> list[str]:
    """What became of the messages, in order."""
    told = (event.data for event in await agents.events(session, turn))
    return [
        f"{getattr(data, 'channel', data.type.removeprefix('turn.steer_'))} {'+'.join(data.message_ids)}"
        for data in told
        if isinstance(data, c.SteerDelivered | c.SteerConsumed | c.SteerRequeued)
    ]


async def ended(agents: Agents, session: str, turn: str) -> Turn:
    """Finished, and of its programs nothing runs any more: of some the shells would stay behind."""
    found = await agents.until(session, turn)
    await until(lambda: _alone(agents, session), "every process of the turn is gone", timeout_s=60)
    return found


async def _alone(agents: Agents, session: str) -> bool:
    return await asyncio.to_thread(agents.processes, session) == []


@pytest.mark.parametrize(("agent", "model"), [CLAUDE, OPENCODE])
async def test_a_turn_of_the_real_program(agents: Agents, agent: str, model: str) -> None:
    session, turn = await agents.start("what is here", agent=agent, model=model)
    found = await ended(agents, session, turn)
    assert status(found) == "success", found.finished
    events = await agents.events(session, turn)
    assert texts(events) == ["I look.", "It is all there."]
    [result] = [event.data for event in events if isinstance(event.data, c.ToolResult)]
    assert "from-the-tool" in text_of(result.output)
    assert "git version" in text_of(result.output)
    assert found.finished is not None
    counted = await usage(agents, session)
    assert len(counted) == 2
    assert sum(each.usage.input_tokens for each in counted) == found.finished.usage.input_tokens
    assert sum(each.usage.output_tokens for each in counted) == found.finished.usage.output_tokens
    assert all(each.turn == turn and each.usage.cost_micro_usd for each in counted)
    # The provider's key is the gateway's, which has put it in the place of the turn's own.
    asked = [seen for seen in agents.api.seen if seen.asked is not None]
    assert all(PROVIDER_KEY in "".join(seen.headers.values()) for seen in asked)
    assert PROVIDER_KEY.encode() not in b"".join(encode(event) for event in events)


async def test_what_is_said_in_mid_tool_reaches_claude_by_its_hook(agents: Agents) -> None:
    session, turn = await agents.start("wait for it", model=CLAUDE[1])
    await agents.until(session, turn, using_a_tool)
    await agents.client.send(ORG, session, c.Steer(turn=turn, message_id="m1", text="and say banana"))
    found = await ended(agents, session, turn)
    assert status(found) == "success", found.finished
    assert texts(await agents.events(session, turn)) == ["banana"]
    assert await story(agents, session, turn) == ["hook m1", "consumed m1"]


async def test_while_only_a_sub_agent_works_claude_hears_over_stdin_and_an_interrupt_ends_all(agents: Agents) -> None:
    session, turn = await agents.start("ask somebody", model=CLAUDE[1])
    await agents.until(session, turn, lambda turn: bool(turn.run.tasks))
    await until(lambda: _hangs(agents, session), "the sub-agent's tool runs", timeout_s=60)
    # A hook that still runs at the end of what it says itself would hear the message first.
    await until(lambda: _is_quiet(agents, session, turn), "its main loop has been silent for 5 s")
    await agents.client.send(ORG, session, c.Steer(turn=turn, message_id="m1", text="and say banana"))
    await agents.until(session, turn, lambda turn: not turn.waiting and bool(turn.messages))
    assert (await story(agents, session, turn))[-2:] == ["stdin m1", "consumed m1"]
    await agents.client.send(ORG, session, c.Interrupt(turn=turn))
    assert status(await ended(agents, session, turn)) == "cancelled"


async def _is_quiet(agents: Agents, session: str, turn: str) -> bool:
    events = await agents.events(session, turn)
    signs = [each.time for each in events if isinstance(each.data, c.AgentEvent) and breaks_the_silence(each.data)]
    return "Somebody looks." in texts(events) and now() - signs[-1] > timedelta(seconds=QUIET_IDLE_S)


async def test_opencode_hears_in_mid_tool_over_stdin(agents: Agents) -> None:
    agent, model = OPENCODE
    session, turn = await agents.start("wait for it", agent=agent, model=model)
    await agents.until(session, turn, using_a_tool)
    await agents.client.send(ORG, session, c.Steer(turn=turn, message_id="m1", text="and say banana"))
    found = await ended(agents, session, turn)
    assert status(found) == "success", found.finished
    assert texts(await agents.events(session, turn)) == ["banana"]
    assert await story(agents, session, turn) == ["stdin m1", "consumed m1"]


@pytest.mark.parametrize(("agent", "model"), [CLAUDE, OPENCODE])
async def test_an_interrupt_with_a_running_tool_leaves_no_process(agents: Agents, agent: str, model: str) -> None:
    session, turn = await agents.start("hang on", agent=agent, model=model)
    await agents.until(session, turn, using_a_tool)
    await until(lambda: _hangs(agents, session), "the tool runs", timeout_s=60)
    await agents.client.send(ORG, session, c.Interrupt(turn=turn))
    assert status(await ended(agents, session, turn)) == "cancelled"


async def _hangs(agents: Agents, session: str) -> bool:
    return any("tail -f" in each for each in await asyncio.to_thread(agents.processes, session))


async def test_a_bridge_that_is_killed_in_mid_turn_is_no_seam(agents: Agents) -> None:
    session, turn = await agents.start("wait for it", model=CLAUDE[1])
    await agents.until(session, turn, using_a_tool)
    await agents.site.kill("bridge")
    found = await ended(agents, session, turn)
    assert status(found) == "success", found.finished
    events = await agents.events(session, turn)
    assert texts(events) == ["I waited."]
    assert sum(isinstance(event.data, c.ToolUse | c.ToolResult) for event in events) == 2
    assert sum(isinstance(event.data, c.AgentResult) for event in events) == 1


async def test_a_plan_is_proposed_and_carried_out_when_it_is_approved(agents: Agents) -> None:
    session, turn = await agents.start("make a plan", model=CLAUDE[1], permission_mode="plan")
    found = await ended(agents, session, turn)
    assert status(found) == "plan", found.finished
    assert found.proposed == PLAN
    await agents.client.send(ORG, session, c.Approve(turn=turn))
    following = await ended(agents, session, derived_id(turn, "go"))
    assert status(following) == "success", following.finished
    assert "I carry it out." in texts(await agents.events(session, derived_id(turn, "go")))
