"""Both implementations of the bus, with a server that can be killed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.memory import MemoryBus, MemoryServer
from sandreel_core.bus.port import Bus
from sandreel_core.embedded.nats import NatsServer
from tests.support.nats import connect_to


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
