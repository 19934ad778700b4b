"""What a program says, gathered and appended: in order, bounded, and as soon as it can be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from sandreel_bridge.backlog import BATCH_BYTES, BATCH_EVENTS, MAX_EVENTS, Backlog
from sandreel_bridge.journal import Journal, Name
from sandreel_core.agent import AgentItem
from sandreel_core.bus.crew import Crew
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import decode_event, encode
from sandreel_core.errors import Conflict
from sandreel_core.turn import Turn
from tests.support.turns import ME, OTHER, RUNNING, SUBJECTS, said, text

SUBJECT = SUBJECTS.event("turn", "t1")
pytestmark = pytest.mark.timeout(30)


class Slow(MemoryBus):
    """Appends when it is let, and says how many each time."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()
        self.may.set()
        self.counts: list[int] = []

    async def append_all(self, subject: str, bodies: Sequence[bytes], *, expected: int) -> int:
        await self.may.wait()
        self.counts.append(len(bodies))
        return await super().append_all(subject, bodies, expected=expected)


@asynccontextmanager
async def opened(**given: object) -> AsyncIterator[tuple[Slow, Journal, Backlog]]:
    bus = Slow()
    await ensure_installation(bus)
    for event in RUNNING:
        await bus.append(SUBJECT, encode(said(event)))
    journal = Journal(bus, Name("acme", "s1", "t1"), 1, source=ME)
    await journal.catch_up()
    backlog = Backlog(journal, **given)  # type: ignore[arg-type]
    async with Crew() as crew:
        crew.start(backlog.run())
        yield bus, journal, backlog


async def texts(bus: MemoryBus) -> list[str]:
    found: list[str] = []
    async for item in bus.follow("REEL-0", [SUBJECT], live=False):
        for stored in item if isinstance(item, list) else ():
            event = decode_event(SUBJECT, stored.body).data
            found += [event.text] if isinstance(event, a.AgentText) else []
    return found


async def test_one_event_waits_for_nobody_and_many_go_together() -> None:
    counted: list[int] = []
    async with opened(progressed=counted.append) as (bus, journal, backlog):
        await backlog.put(text("0", n=4))
        await backlog.emptied()
        bus.may.clear()
        for number in range(1, 11):
            await backlog.put(text(str(number), n=4))
            await asyncio.sleep(0)
        await backlog.put(c.Checkpoint(exec_n=4))
        bus.may.set()
        await backlog.emptied()
        assert bus.counts == [1, 1, 10]
        assert await texts(bus) == [str(number) for number in range(11)]
        assert journal.turn.run.at_source == 11
        assert journal.turn.checkpoint == c.Checkpoint(exec_n=4)
        assert counted == [1, 1, 9]


async def test_it_is_bounded_and_whoever_puts_more_waits() -> None:
    async with opened() as (bus, _, backlog):
        bus.may.clear()
        put = 0

        async def fill() -> None:
            nonlocal put
            for number in range(3 * MAX_EVENTS):
                await backlog.put(text(str(number), n=4))
                put = number + 1

        filling = asyncio.create_task(fill())
        for _ in range(100):
            await asyncio.sleep(0)
        assert MAX_EVENTS <= put <= MAX_EVENTS + BATCH_EVENTS
        bus.may.set()
        await filling
        await backlog.emptied()
        assert await texts(bus) == [str(number) for number in range(3 * MAX_EVENTS)]
        assert max(bus.counts) == BATCH_EVENTS


async def test_large_events_make_small_batches() -> None:
    async with opened() as (bus, _, backlog):
        bus.may.clear()
        words = "x" * (BATCH_BYTES // 4)
        putting = asyncio.gather(*(backlog.put(text(words, n=4)) for _ in range(12)))
        await asyncio.sleep(0)
        bus.may.set()
        await putting
        await backlog.emptied()
        assert len(await texts(bus)) == 12
        assert max(bus.counts) == 3, "four of them are over the limit, for an event is more than its text"


async def test_each_is_heard_once_with_the_turn_that_it_meets_though_it_came_in_one_batch() -> None:
    heard: list[tuple[bool, str]] = []

    def hear(turn: Turn, item: AgentItem) -> list[c.TurnEvent]:
        heard.append((turn.run.tells, type(item).__name__))
        return []

    async with opened(heard=hear) as (bus, _, backlog):
        bus.may.clear()
        await backlog.put(text("first", n=4))
        await asyncio.sleep(0)
        told = {"type": "command_lifecycle", "command_uuid": "u", "state": "started"}
        await backlog.put(a.AgentRaw(source_n=5, payload=told))
        await backlog.put(a.AgentResult(source_n=6, status="completed"))
        # Somebody gets in between, so that the batch is tried twice.
        queued = c.SteerQueued(message_id="m1", text="more")
        await bus.append(SUBJECT, encode(said(queued, command="c2")))
        bus.may.set()
        await backlog.emptied()
        assert heard == [(False, "AgentText"), (False, "AgentRaw"), (True, "AgentResult")]


async def test_a_turn_that_was_lost_ends_it() -> None:
    async def lose() -> None:
        async with opened() as (bus, _, backlog):
            await bus.append(SUBJECT, encode(said(c.Checkpoint(exec_n=1), source=OTHER)))
            await backlog.put(text("late", n=4))
            await backlog.emptied()

    with pytest.raises(ExceptionGroup) as raised:
        await lose()
    assert raised.value.subgroup(Conflict) is not None
