"""The real Claude Code before a model that refuses, fails and cuts its replies: what it makes of it is told as it was, and counted. And an
agent that the kernel ends for want of memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sandreel_bridge.gateway.client import GatewayClient
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as c
from sandreel_core.contract.session import Limits
from tests.support.bridges import texts
from tests.support.model_api import Failure, Reply
from tests.support.model_api.asked import Asked
from tests.support.real_agents import RealAgents, missing, open_agents, status
from tests.support.system import ORG
from tests.support.system_users import bus_of

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
    pytest.mark.xdist_group("docker"),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
MODEL = "claude-sonnet-4-5"
CUT, ANSWER = Reply("one two three four", cut_after=6), Reply("It works after all.")
# What is answered, one after the other, the last one from then on: the real program tries again, here three times. And how the turn ends.
TROUBLES: dict[str, tuple[list[Reply | Failure], str]] = {
    "meet 401": ([Failure(401)], "failed"),
    "meet 402": ([Failure(402)], "failed"),
    "meet 429": ([Failure(429), ANSWER], "success"),
    "meet 500": ([Failure(500), ANSWER], "success"),
    "meet a cut": ([CUT, ANSWER], "success"),
}

# In the place of Codex: it says a word, and then takes more memory than its session has.
HUNGRY, HUNGRY_SCRIPT = (
    "/workspace/hungry",
    b"""#!/bin/sh
echo '{"type":"thread.started","thread_id":"a1"}'
echo '{"type":"item.completed","item":{"id":"i1","type":"agent_message","text":"before"}}'
exec python3 -c "kept = [b'x' * (8 << 20) for _ in range(1000)]"
""",
)


class Troubled:
    """A script; `met`: what was answered, by what the program was told."""

    def __init__(self) -> None:
        self.met: defaultdict[str, list[Reply | Failure]] = defaultdict(list)

    def __call__(self, asked: Asked) -> Reply | Failure:
        [name] = [name for name in TROUBLES if any(name in item.text for item in asked.items)]
        answers, met = TROUBLES[name][0], self.met[name]
        met.append(answers[min(len(met), len(answers) - 1)])
        return met[-1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agents() -> AsyncIterator[RealAgents]:
    async with open_agents(Troubled(), SANDREEL_BRIDGE_PROGRAMS=f"codex={HUNGRY}") as agents:
        yield agents


async def test_what_claude_makes_of_a_model_that_fails_is_told_and_counted(agents: RealAgents) -> None:
    """All at once, in one session: each of them waits longer than it works."""
    limits = Limits(execs=len(TROUBLES))
    env = {"CLAUDE_CODE_MAX_RETRIES": "3"}
    session = await agents.site.session("troubled", profile="agent", limits=limits, env=env)
    agents.api.script = script = Troubled()
    turns = {name: (await agents.start(name, session, model=MODEL))[1] for name in TROUBLES}
    found = {name: await agents.until(session, turn) for name, turn in turns.items()}
    await agents.ended(session, turns["meet 401"])  # with all the others
    for name, (_, expected) in TROUBLES.items():
        assert status(found[name]) == expected, (name, found[name].finished)
        events = [event.data for event in await agents.events(session, turns[name])]
        assert [event.status for event in events if isinstance(event, c.TurnFinished)] == [expected]
        calls, met = await agents.counted(session, turns[name]), script.met[name]
        answered = [each.status if isinstance(each, Failure) else 200 for each in met]
        assert [each.http_status for each in calls] == answered, name
        assert [each.complete for each in calls] == [each is not CUT for each in met], name
        finished = found[name].finished
        assert finished is not None
        output = sum(each.usage.output_tokens for each in calls)
        if expected == "failed":
            assert f"(the model's API answered {answered[-1]})" in (finished.error or "")
            assert (finished.usage.output_tokens, output) == (0, 0)
        else:
            assert [each.text for each in events if isinstance(each, a.AgentText)][-1:] == ["It works after all."]
            # Of a reply that was cut the program may know less than the gateway, and never more.
            assert finished.usage.output_tokens <= output


async def test_an_agent_that_is_out_of_memory_says_so_and_its_session_goes_on(agents: RealAgents) -> None:
    session = await agents.site.session("hungry", limits=Limits(memory_bytes=256 << 20))
    await agents.client.files(ORG, session).write("hungry", HUNGRY_SCRIPT)
    assert (await agents.client.run(ORG, session, ["chmod", "+x", HUNGRY])).exit_code == 0
    _, turn = await agents.start("eat", session, agent="codex", model="gpt-5-mini")
    found = await agents.ended(session, turn)
    assert found.finished is not None
    assert (found.finished.status, found.finished.error) == (
        "failed",
        "the agent's program was killed because the sandbox ran out of memory",
    )
    assert texts(await agents.events(session, turn)) == ["before"]
    async with bus_of(agents.site.stack) as bus:
        assert [key for key in await GatewayClient(bus).live() if key.turn == turn] == []
    assert (await agents.client.session(ORG, session)).ready
