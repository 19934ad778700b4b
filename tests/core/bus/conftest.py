"""Both implementations of the bus, with a server that can be killed, and how its promises are asked for."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

import pytest

from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.memory import MemoryBus, MemoryServer
from sandreel_core.bus.port import Bus, Item, Stored, Stream
from sandreel_core.embedded.nats import NatsServer
from tests.support.nats import connect_to

LIMIT_S = 20
REEL = Stream("REEL-0", ("evt.0.>",), 1 << 24, metadata={"epoch": "first"})
CMD = Stream("CMD", ("cmd.>",), 1 << 24, per_subject=1, discard_new_per_subject=True)


class World(Protocol):
    """A server, and buses on it. `crash` is kill -9, `start` the same data again."""

    bus: Bus

    async def another(self) -> Bus: ...
    async def crash(self) -> None: ...
    async def start(self) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self._server = MemoryServer()
        self.bus: Bus = MemoryBus(self._server)

    async def another(self) -> Bus:
        return MemoryBus(self._server)

    async def crash(self) -> None:
        self._server.crash()

    async def start(self) -> None:
        self._server.start()


class JetStreamWorld:
    def __init__(self, server: NatsServer, bus: JetStreamBus) -> None:
        self.server = server
        self.bus: Bus = bus
        self.others: list[JetStreamBus] = []

    async def another(self) -> Bus:
        self.others.append(await connect_to(self.server))
        return self.others[-1]

    async def crash(self) -> None:
        self.server.kill()
        await self.server.wait()

    async def start(self) -> None:
        await self.server.start()


@pytest.fixture(params=["memory", "jetstream"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    data = Path(tempfile.mkdtemp(prefix="sandreel-nats-"))
    try:
        async with NatsServer(data) as server:
            made = JetStreamWorld(server, await connect_to(server))
            try:
                yield made
            finally:
                for bus in (made.bus, *made.others):
                    await bus.close()
    finally:
        shutil.rmtree(data)


async def read(bus: Bus, filters: list[str], *, after: int = 0) -> tuple[list[Stored], list[Item]]:
    """All that is stored now, and the markers."""
    messages: list[Stored] = []
    markers: list[Item] = []
    async with asyncio.timeout(LIMIT_S), aclosing(bus.follow("REEL-0", filters, after=after, live=False)) as items:
        async for item in items:
            if isinstance(item, list):
                assert item
                messages += item
            else:
                markers.append(item)
    return messages, markers


async def take(items: AsyncGenerator[Item, None], count: int) -> list[Stored]:
    """So many messages of a live reader."""
    taken: list[Stored] = []
    async with asyncio.timeout(LIMIT_S):
        while len(taken) < count:
            item = await anext(items)
            taken += item if isinstance(item, list) else []
    return taken


async def forever(call: Callable[[], Awaitable[object]]) -> None:
    """Until it raises: a connection that is lost is noticed a moment later."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            await call()
            await asyncio.sleep(0)


def bodies(messages: list[Stored]) -> list[bytes]:
    return [message.body for message in messages]


async def fill(bus: Bus, subject: str, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await bus.append(subject, str(number).encode())


def numbers(first: int, last: int) -> list[bytes]:
    return [str(number).encode() for number in range(first, last + 1)]
