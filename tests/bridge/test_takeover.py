"""A bridge that dies, halts, or is not alone: the same events, none doubled, none lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from time import monotonic

import pytest
import pytest_asyncio

from sandreel_core.contract import turn as c
from tests.support.bridges import Turns, open_turns, texts, tools

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]
# A figure is for the bench: here the machine may have eight other things to do.
TAKEN_WITHIN_S = 30.0


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def turns() -> AsyncIterator[Turns]:
    async with open_turns() as turns:
        yield turns


# The second one prints as fast as it can: the bridge dies, or loses the turn, with a batch under way and more behind it.
_PROMPTS = [("steps", 400), ("lines", 3000)]


@pytest.mark.parametrize(("verb", "count"), _PROMPTS)
async def test_a_bridge_that_is_killed_in_mid_turn_is_followed_by_another(turns: Turns, verb: str, count: int) -> None:
    """The program goes on meanwhile, and prints what only the successor can map."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(turns.process())
        session, turn = await turns.start("hold first")
        before = (await turns.until(session, turn, lambda state: state.run.said)).run.source_n
        other = await stack.enter_async_context(turns.process())
        await turns.say(session, turn, f"{verb} {count}")
        await turns.until(session, turn, lambda state: state.run.source_n > before)
        first.send(signal.SIGKILL)
        killed_at = monotonic()
        taken = await turns.until(session, turn, lambda state: state.driver == other.source)
        assert taken.phase == "running"
        assert monotonic() - killed_at < TAKEN_WITHIN_S
        finished = await turns.until(session, turn)
        assert finished.finished is not None
        assert finished.finished.status == "success"
        events = await turns.events(session, turn)
        assert tools(events) == [f"t{number}" for number in range(1, count + 1)]
        assert [event.type for event in events].count("turn.finished") == 1
        assert finished.usage.cost_micro_usd == 450


async def test_a_bridge_that_was_halted_finds_that_another_drives_its_turn(turns: Turns) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(turns.process())
        session, turn = await turns.start("hold first")
        await turns.until(session, turn, lambda state: state.run.said)
        other = await stack.enter_async_context(turns.process())
        first.send(signal.SIGSTOP)
        await turns.until(session, turn, lambda state: state.driver == other.source)
        first.send(signal.SIGCONT)
        await turns.say(session, turn, "lines 50")
        finished = await turns.until(session, turn)
        assert finished.finished is not None
        events = await turns.events(session, turn)
        assert tools(events) == [f"t{number}" for number in range(1, 51)]
        assert texts(events) == ["first"]
        assert finished.finished.status == "success"
        later = [event.source for event in events if event.causationid is None]
        assert later.index(other.source) > 0


async def test_a_bridge_that_is_halted_with_a_batch_under_way_finds_that_another_drives_its_turn(turns: Turns) -> None:
    """What it sends when it goes on again was expected behind what is not the last any more."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(turns.process())
        session, turn = await turns.start("hold first")
        before = (await turns.until(session, turn, lambda state: state.run.said)).run.source_n
        other = await stack.enter_async_context(turns.process())
        await turns.say(session, turn, "lines 3000")
        await turns.until(session, turn, lambda state: state.run.source_n > before)
        first.send(signal.SIGSTOP)
        await turns.until(session, turn, lambda state: state.driver == other.source)
        first.send(signal.SIGCONT)
        finished = await turns.until(session, turn)
        assert finished.finished is not None
        assert finished.finished.status == "success"
        assert tools(await turns.events(session, turn)) == [f"t{number}" for number in range(1, 3001)]


async def test_two_bridges_share_the_work_and_double_nothing(turns: Turns) -> None:
    async with AsyncExitStack() as stack:
        bridges = [await stack.enter_async_context(turns.process()) for _ in range(2)]
        started = await asyncio.gather(*(turns.start("lines 60") for _ in range(6)))
        finished = await asyncio.gather(*(turns.until(*name) for name in started))
        for (session, turn), state in zip(started, finished, strict=True):
            assert state.finished is not None
            assert state.finished.status == "success"
            events = await turns.events(session, turn)
            assert tools(events) == [f"t{number}" for number in range(1, 61)]
            assert {event.source for event in events} <= {bridge.source for bridge in bridges}


async def test_a_bridge_that_dies_as_it_starts_a_turn_leaves_one_exec(turns: Turns) -> None:
    """Killed at whatever step: the turn ends once, and its program has run once."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(turns.process())
        session, turn = await turns.start("say hello")
        await turns.until(session, turn, lambda state: state.preparing is not None)
        first.send(signal.SIGKILL)
        await stack.enter_async_context(turns.process())
        finished = await turns.until(session, turn)
        assert finished.finished is not None
        assert finished.finished.status == "success"
        events = await turns.events(session, turn)
        assert texts(events) == ["hello"]
        assert [event.type for event in events if event.type == c.TurnFinished.type] == ["turn.finished"]


@pytest.mark.parametrize(("verb", "count"), [("steps", 200), ("lines", 3000)])
async def test_a_server_that_is_killed_in_mid_turn_costs_nothing(turns: Turns, verb: str, count: int) -> None:
    async with turns.process():
        session, turn = await turns.start("hold first")
        before = (await turns.until(session, turn, lambda state: state.run.said)).run.source_n
        await turns.say(session, turn, f"{verb} {count}")
        await turns.until(session, turn, lambda state: state.run.source_n > before)
        await turns.site.kill("nats")
        finished = await turns.until(session, turn)
        assert finished.finished is not None
        assert finished.finished.status == "success"
        assert tools(await turns.events(session, turn)) == [f"t{number}" for number in range(1, count + 1)]
