"""The demo's second act: the real Claude Code mends a test in a container of its own, and the bridge is killed meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from sandreel_core.cli.demo_model import KEY
from sandreel_core.errors import Unavailable

if TYPE_CHECKING:
    from sandreel_core.cli.stage import Stage
    from sandreel_core.client import Client, TurnHandle
    from sandreel_core.client.turn_items import TurnItem, TurnResult
    from sandreel_core.embedded.stack import Stack

SESSION, TURN = "demo-agent", "turn-1"
MODEL = "claude-sonnet-4-5"
PROMPT = "test_prices.py fails. Find out why, and mend it."
PROJECT = {
    "repo/prices.py": "def total(prices, discount=0):\n    return sum(prices) + discount\n",
    "repo/test_prices.py": (
        "import sys\nfrom prices import total\n\n"
        "for off, due in ((0, 7), (2, 5)):\n"
        "    if (found := total([3, 4], discount=off)) != due:\n"
        '        sys.exit(f"total([3, 4], discount={off}) is {found}, not {due}")\n'
        'print("2 passed")\n'
    ),
}
QUERY = (
    "what each call of its model cost",
    "SELECT turn, agent_name, response_model, input_tokens, output_tokens, cost_micro_usd FROM reel.usage_ledger ORDER BY stored_at",
)
# Of the job and of the turn: the views have both, and what the turn cost.
CAUGHT_UP = (
    "SELECT x.exec FROM reel.execs AS x, reel.usage_turns AS u"
    " WHERE x.exec = 'job-1' AND x.phase = 'exited' AND u.turn = 'turn-1' AND u.reconciled_at IS NOT NULL"
)
_WITHIN_S = 60.0


async def play(stage: Stage, stack: Stack, client: Client, org: str) -> bool:
    """Whether all of it was as it should be. Raises Unavailable, Refused."""
    from sandreel_core.contract.message import Owner

    stage.title(
        "A coding agent mends a test: the real Claude Code, and a stand-in of its model (no key, nothing is spent)"
    )
    began = time.monotonic()
    await client.create_session(org, SESSION, profile="agent")
    for path, text in PROJECT.items():
        await client.files(org, SESSION).write(path, text.encode())
    stage.say(f"  session {SESSION} is ready after {time.monotonic() - began:.2f} s, with a test that fails")
    stage.say(f"  sandreel turn --session {SESSION} {PROMPT!r}")
    owner = Owner(type="session", id=SESSION)
    turn = await client.turn(org, SESSION, owner=owner, agent="claude-code", model=MODEL, prompt=PROMPT, turn=TURN)
    result = await _watch(stage, stack, turn)
    calls = await turn.calls(settled_within_s=10)
    test = await client.run(org, SESSION, ["python3", "repo/test_prices.py"])
    # In all that the agent has left behind, and in every process that is there.
    key = await client.run(org, SESSION, ["sh", "-c", f"grep -rls {KEY} . /proc/[0-9]*/environ | wc -l"])
    return all(
        [
            stage.compare("outcome", "success", result.status),
            stage.compare("the test now", "2 passed", test.text.strip()),
            stage.compare("its ends in the log", 1, await _ends(turn)),
            stage.compare(
                "tokens, by the gateway and by the agent",
                sum(call.usage.input_tokens + call.usage.output_tokens for call in calls),
                result.usage.input_tokens + result.usage.output_tokens,
            ),
            stage.compare("places in the sandbox with the provider's key", "0", key.text.strip()),
        ]
    )


async def _watch(stage: Stage, stack: Stack, turn: TurnHandle) -> TurnResult:
    """As `sandreel turn` shows it; the bridge is killed when the first tool has begun."""
    from sandreel_core.agent import AgentReader
    from sandreel_core.cli.agents import agents
    from sandreel_core.cli.turn_screen import TurnScreen

    def reader_of(agent: str) -> AgentReader | None:
        make = agents().get(agent)
        return make() if make is not None else None

    screen = TurnScreen(turn, json=stage.json)
    items = turn.follow(reader_of=reader_of if screen.animated else None)
    moving = asyncio.create_task(screen.animate())
    try:
        with stage.beside(screen.make_room):
            async with asyncio.timeout(_WITHIN_S):
                await screen.show(_killing(items, stage, stack))
    except TimeoutError as error:
        raise Unavailable(f"the turn has not ended after {_WITHIN_S:g} s") from error
    finally:
        moving.cancel()
    if screen.result is None:
        raise Unavailable("the log ended before the turn did")
    return screen.result


async def _killing(items: AsyncGenerator[TurnItem, None], stage: Stage, stack: Stack) -> AsyncGenerator[TurnItem, None]:
    from sandreel_core.contract.agent import ToolUse

    struck = False
    async with aclosing(items):
        async for item in items:
            yield item
            if not struck and isinstance(getattr(item, "data", None), ToolUse):
                struck = True
                stage.kill(
                    "bridge", "SIGKILL while a tool runs: the agent goes on, and a new bridge takes its turn over"
                )
                await stack.parts["bridge"].kill()


async def _ends(turn: TurnHandle) -> int:
    from sandreel_core.contract.turn import TurnFinished

    async with aclosing(turn.follow(live=False)) as items:
        return sum([isinstance(getattr(item, "data", None), TurnFinished) async for item in items])
