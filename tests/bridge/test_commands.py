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
from sandreel_core.bus.loading import load
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.client import Client
from sandreel_core.contract import turn as c
from sandreel_core.errors import Refused
from sandreel_core.turn import Turn, fold
from tests.support.memory_gateway import MemoryGateway
from tests.support.turns import OWNER


@asynccontextmanager
async def bridge(gateway: Gateway | None) -> AsyncIterator[Client]:
    bus = MemoryBus()
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
        assert await client.bus.subjects("TURNS", ">") == {}
