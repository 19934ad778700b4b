"""Turns, end to end: a real stack, sessions as processes, a stand-in of Claude Code, and a gateway in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sandreel_core.contract import turn as c
from tests.support.bridges import ORG, Turns, open_turns, texts

# Shared by the module: each test has sessions of its own.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def turns() -> AsyncIterator[Turns]:
    async with open_turns() as turns, turns.bridge():
        yield turns


async def test_a_turn_makes_its_session_and_says_everything_once(turns: Turns) -> None:
    session, turn = await turns.run("say hello", turn="first", session=None)
    assert turn.finished == c.TurnFinished(
        status="success", usage=c.Usage(input_tokens=100, output_tokens=10, cost_micro_usd=450)
    )
    events = await turns.events(session, "first")
    types = [event.type for event in events if event.type != c.Checkpoint.type]
    assert types == [
        *("turn.requested", "turn.preparing", "turn.started"),
        *("agent.run_started", "agent.text", "agent.usage", "agent.result", "turn.finished"),
    ]
    assert texts(events) == ["hello"]
    assert {event.correlationid for event in events} == {events[0].causationid}
    assert turn.asked is not None
    assert (await turns.client.session(ORG, session)).ready
