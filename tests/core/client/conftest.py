"""The client over the memory twin, against made-up roles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

import pytest

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.port import Item, Stream
from sandreel_core.client import Client, ExecItem, Output
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Owner
from tests.support.fake_roles import Roles, fake_roles

ORG, SESSION = "acme", "s1"
STREAMS = [
    Stream("REEL-0", ("evt.0.>",), 1 << 30, metadata={"epoch": "e1"}),
    Stream("CMD", ("cmd.>",), 1 << 30, per_subject=1, discard_new_per_subject=True, metadata={"epoch": "e2"}),
]


@pytest.fixture
async def bus() -> MemoryBus:
    bus = MemoryBus()
    await bus.ensure(STREAMS)
    return bus


@pytest.fixture
async def roles(bus: MemoryBus) -> AsyncIterator[Roles]:
    async with fake_roles(MemoryBus(bus.server)) as roles:
        yield roles


@pytest.fixture
async def client(bus: MemoryBus, roles: Roles) -> Client:
    client = Client(bus, actor="tests", answer_timeout_s=5)
    await client.create_session(ORG, SESSION, owner=Owner(type="user", id="ada"), timeout_s=5)
    return client


async def seen(client: Client, exec_id: str, after: Cursor | None = None, live: bool = True) -> list[ExecItem]:
    async with asyncio.timeout(5), aclosing(client.follow(ORG, SESSION, exec_id, after=after, live=live)) as items:
        return [item async for item in items]


def printed(items: list[ExecItem]) -> bytes:
    return b"".join(item.data for item in items if isinstance(item, Output))


@pytest.fixture
def begun(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sequences behind which the client has read."""
    places: list[int] = []
    follow = bus.follow

    def noted(stream: str, filters: Sequence[str], *, after: int = 0, live: bool = True) -> AsyncGenerator[Item, None]:
        places.append(after)
        return follow(stream, filters, after=after, live=live)

    monkeypatch.setattr(bus, "follow", noted)
    return places
