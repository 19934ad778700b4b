"""What a bridge answers at once, before anything is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sandreel_bridge.gateway.port import Gateway
from sandreel_bridge.service import Bridge
from sandreel_bridge.settings import Settings
from sandreel_core.bus import installed
from sandreel_core.bus.loading import load
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.client import Client
from sandreel_core.clock import new_id, now
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.session import CommandRefused
from sandreel_core.errors import Misconfigured, Refused
from sandreel_core.spawner.quota import slots
from sandreel_core.turn import Turn, fold
from tests.support.memory_gateway import MemoryGateway
from tests.support.turns import OWNER


@asynccontextmanager
async def bridge(gateway: Gateway | None, bus: MemoryBus | None = None) -> AsyncIterator[Client]:
    bus = bus or MemoryBus()
    await ensure_installation(bus)
    ready = asyncio.Event()
    task = asyncio.create_task(Bridge(bus, Settings(), gateway).run(ready.set))
    try:
        await asyncio.wait_for(ready.wait(), 20)
        yield Client(bus, answer_timeout_s=20)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("gateway", "fields", "code"),
    [
        (None, {}, "NO_GATEWAY"),
        (MemoryGateway(), {"owner": None}, "SESSION_NOT_FOUND"),
        (MemoryGateway(), {"agent": "clippy"}, "UNKNOWN_AGENT"),
        (MemoryGateway(), {"agent": "codex", "permission_mode": "plan"}, "BAD_REQUEST"),
    ],
)
async def test_a_turn_that_cannot_be_is_refused_and_leaves_nothing_to_drive(
    gateway: Gateway | None, fields: dict[str, Any], code: str
) -> None:
    async with bridge(gateway) as client:
        asked: dict[str, Any] = {"turn": "t1", "agent": "claude-code", "prompt": "hi", "owner": OWNER}
        with pytest.raises(Refused, match=code):
            await client.send("acme", "s1", c.StartTurn(**(asked | fields)))
        with pytest.raises(Refused, match="TURN_NOT_FOUND"):
            await client.send("acme", "s1", c.Interrupt(turn="t1"))
        loaded = await load(client.bus, client.subjects("acme", "s1").event("turn", "t1"), Turn(), fold)
        assert (loaded.state, len(loaded.answers)) == (Turn(), 2)
        assert await client.bus.subjects("TURNS", "turn.open.>") == {}


async def test_what_was_refused_for_want_of_a_bridge_is_not_carried_out_by_the_first_one() -> None:
    bus = MemoryBus()
    await ensure_installation(bus)
    client = Client(bus)
    subjects = client.subjects("acme", "s1")
    ids = [new_id(), new_id()]
    for id, turn in zip(ids, ("refused", "waited"), strict=True):
        start = c.StartTurn(turn=turn, agent="claude-code", prompt="hi", owner=OWNER)
        subject = subjects.command("bridge", id)
        await bus.append(subject, encode(seal(start, id=id, source="/client", subject=subject, time=now())))
    said = CommandRefused(command_id=ids[0], code="ROLE_NOT_INSTALLED", message="there is no bridge")
    where = subjects.event("session")
    refusal = seal(said, id=new_id(), source="/spawner", subject=where, time=now(), causationid=ids[0])
    await bus.append(where, encode(refusal))
    async with bridge(MemoryGateway(), bus):
        async with asyncio.timeout(20):
            while await bus.last(subjects.stream, subjects.event("turn", "waited")) is None:
                await asyncio.sleep(0.01)
        # They are taken in order, and each waits for nothing but the bus.
        assert await bus.last(subjects.stream, subjects.event("turn", "refused")) is None
        assert list(await bus.subjects("TURNS", "turn.open.>")) == ["turn.open.acme.s1.waited.waited"]
        # What is sent again under another id is a command of its own.
        subject = subjects.command("bridge", id := new_id())
        start = c.StartTurn(turn="refused", agent="claude-code", prompt="hi", owner=OWNER)
        await bus.append(subject, encode(seal(start, id=id, source="/client", subject=subject, time=now())))
        async with asyncio.timeout(20):
            while await bus.last(subjects.stream, subjects.event("turn", "refused")) is None:
                await asyncio.sleep(0.01)
        loaded = await load(bus, subjects.event("turn", "refused"), Turn(), fold)
        assert set(loaded.answers) == {id}


@pytest.mark.timeout(60)
async def test_an_interrupt_is_not_kept_waiting_for_a_session_that_does_not_come_up() -> None:
    """Nobody makes it here; whoever pressed stop is answered long before that would be given up."""
    async with bridge(MemoryGateway()) as client:
        turn = await client.turn("acme", "s1", owner=OWNER, agent="claude-code", prompt="hi")
        async with asyncio.timeout(20):
            while not await client.bus.subjects("CMD", "cmd.spawner.>"):
                await asyncio.sleep(0.01)
            await turn.interrupt()
            ended = await turn.finished()
        assert (ended.status, ended.error) == ("cancelled", None)


@pytest.mark.timeout(60)
async def test_a_bridge_that_the_spawner_refuses_commands_for_does_not_serve() -> None:
    """Each command would be refused and carried out."""
    bus = MemoryBus()
    await ensure_installation(bus)
    await bus.ensure([slots()])
    await installed.declare(bus, ["broker"])
    with pytest.raises(Misconfigured, match="does not name the bridge"):
        await Bridge(bus, Settings(), MemoryGateway()).run()
    await installed.declare(bus, ["broker", "bridge"])
    ready = asyncio.Event()
    serving = asyncio.create_task(Bridge(bus, Settings(), MemoryGateway()).run(ready.set))
    await ready.wait()
    await installed.declare(bus, [])
    with pytest.raises(ExceptionGroup) as ended:
        await serving
    assert ended.group_contains(Misconfigured)
