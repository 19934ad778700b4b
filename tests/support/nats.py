"""Real NATS servers for tests.

nats_server   a fresh server with its own data; a test may kill and start it
connect_bus   connects any number of buses to it, all closed at the end
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.embedded.nats import NatsServer

Connect = Callable[..., Awaitable[JetStreamBus]]


@pytest.fixture
async def nats_server() -> AsyncIterator[NatsServer]:
    # Not pytest's own directory: its parents are closed to the user that the server runs as.
    data = Path(tempfile.mkdtemp(prefix="sandreel-nats-"))
    try:
        async with NatsServer(data) as server:
            yield server
    finally:
        shutil.rmtree(data)


async def connect_to(server: NatsServer, user: str = "role", *, url: str | None = None) -> JetStreamBus:
    """A bus for one of the server's users, through `url` if it is not the server's own (a proxy's)."""
    return await JetStreamBus.connect(
        [url or server.url], name=f"test-{user}", user=user, password=server.password(user), connect_timeout_s=20
    )


@pytest.fixture
async def connect_bus(nats_server: NatsServer) -> AsyncIterator[Connect]:
    async with AsyncExitStack() as stack:

        async def connect(user: str = "role", *, url: str | None = None) -> JetStreamBus:
            bus = await connect_to(nats_server, user, url=url)
            stack.push_async_callback(bus.close)
            return bus

        yield connect
