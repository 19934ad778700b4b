"""Who drives a turn, and that nothing which is asked of it meanwhile is overlooked: a bridge over a log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import pytest

from sandreel_bridge import beats, orchestrator, sandbox
from sandreel_bridge.beats import BEAT
from sandreel_bridge.gateway.port import KeyStanding
from sandreel_bridge.index import Index, streams
from sandreel_bridge.journal import Name
from sandreel_bridge.process import Home
from sandreel_bridge.service import Bridge
from sandreel_bridge.settings import Settings
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.client import Client
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import decode_event, encode
from sandreel_core.contract.message import Envelope, Event
from tests.support.memory_gateway import MemoryGateway
from tests.support.turns import OTHER, RUNNING, SUBJECTS, preparing, requested, result, said

pytestmark = pytest.mark.timeout(90)
NAME = Name("acme", "s1", "t1")
PLANNED = (
    requested(permission_mode="plan"),
    *RUNNING[1:],
    result(),
    c.PlanProposed(plan="1. look"),
    c.TurnFinished(status="plan"),
)


async def log_of(*events: Event) -> MemoryBus:
    """A turn that is not settled, of a bridge that is gone."""
    bus = MemoryBus()
    await ensure_installation(bus)
    await bus.ensure(streams(), [])
    await Index(bus).open(NAME, "t1")
    for event in events:
        command = "c1" if isinstance(event, c.TurnRequested) else None
        await bus.append(SUBJECTS.event("turn", "t1"), encode(said(event, source=OTHER, command=command)))
    return bus


@asynccontextmanager
async def bridge(bus: MemoryBus, gateway: MemoryGateway) -> AsyncGenerator[Bridge, None]:
    ready = asyncio.Event()
    serving = Bridge(bus, Settings(), gateway)
    task = asyncio.create_task(serving.run(ready.set))
    try:
        await asyncio.wait_for(ready.wait(), 20)
        yield serving
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def first_of(bus: MemoryBus, turn: str) -> Envelope:
    """The first event of a turn, as soon as it is there."""
    subject = SUBJECTS.event("turn", turn)
    async with aclosing(bus.follow("REEL-0", [subject])) as items:
        async for item in items:
            for stored in item if isinstance(item, list) else ():
                return decode_event(subject, stored.body)
    raise AssertionError("the log ended")


async def test_a_plan_that_is_approved_while_its_turn_is_being_settled_is_carried_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a program that answers `turn.plan_proposed` at once."""
    revoking, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(self: MemoryGateway, name: str) -> KeyStanding | None:
        revoking.set()
        await go_on.wait()
        return await revoke(self, name)

    revoke = MemoryGateway.revoke
    monkeypatch.setattr(MemoryGateway, "revoke", slowly)
    monkeypatch.setattr(orchestrator, "LEFT_AFTER_S", 0.0)
    bus = await log_of(*PLANNED)
    async with bridge(bus, MemoryGateway()):
        await asyncio.wait_for(revoking.wait(), 60)
        approved = await Client(bus, answer_timeout_s=60).send("acme", "s1", c.Approve(turn="t1"))
        go_on.set()
        began = await asyncio.wait_for(first_of(bus, approved.data.next_turn), 20)
        assert isinstance(began.data, c.TurnRequested)


async def test_a_turn_whose_driver_failed_and_that_another_has_taken_up_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[str] = []
    bus = await log_of(requested())

    async def taken_up_meanwhile(client: Client, name: Name) -> Home:
        """The step fails, and by then another bridge has said that it drives the turn."""
        looked.append(name.turn)
        await bus.append(SUBJECTS.event("turn", "t1"), encode(said(preparing(), source=OTHER)))
        raise RuntimeError("a bug")

    async def alive() -> None:
        while True:
            await bus.publish(f"{BEAT}.two", OTHER.encode())
            await asyncio.sleep(0.02)

    monkeypatch.setattr(sandbox, "look", taken_up_meanwhile)
    monkeypatch.setattr(beats, "BEAT_S", 0.05)
    monkeypatch.setattr(orchestrator, "BEAT_S", 0.05)
    monkeypatch.setattr(orchestrator, "_GREATEST_PAUSE_S", 0.2)
    async with bridge(bus, MemoryGateway()):
        while not looked:  # it notices first that the bridge which it stood with is silent
            await asyncio.sleep(0.02)
        beating = asyncio.create_task(alive())
        await asyncio.sleep(1)  # longer than the pause before the next try
        beating.cancel()
        assert looked == ["t1"]
        assert (await bus.subjects("REEL-0", SUBJECTS.event("turn", "t1"))) == {SUBJECTS.event("turn", "t1"): 2}
