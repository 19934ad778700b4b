"""Who may be connected to the gateway, and for how long without a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web

from sandreel_bridge.gateway.front import front, opener
from sandreel_bridge.gateway.measures import GatewayMeasures
from sandreel_bridge.gateway.settings import Settings
from sandreel_core.embedded.place import free_port
from sandreel_core.errors import Misconfigured
from sandreel_core.metrics import Metrics

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="here")


@asynccontextmanager
async def served(
    *, keep_alive_s: float = 60, **own: Any
) -> AsyncGenerator[tuple[int, Metrics, web.ServerRunner], None]:
    metrics, port = Metrics(), free_port()
    runner = front(answer, Settings(**own), GatewayMeasures(metrics), keep_alive_s=keep_alive_s)
    await runner.setup()
    try:
        await opener(runner)("127.0.0.1", port)
        yield port, metrics, runner
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[Streams, None]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def is_served(streams: Streams) -> bool:
    with suppress(ConnectionError):
        streams[1].write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        with suppress(asyncio.IncompleteReadError):
            return b"200 OK" in await asyncio.wait_for(streams[0].readuntil(b"here"), 10)
    return False


async def is_closed(streams: Streams) -> bool:
    with suppress(ConnectionResetError):
        return await asyncio.wait_for(streams[0].read(1), 10) == b""
    return True


async def test_connections_beyond_the_bound_are_closed_and_the_others_go_on() -> None:
    async with served(max_connections=2) as (port, metrics, _), connected(port) as one:
        async with connected(port) as two:
            assert await is_served(one)
            assert await is_served(two)
            async with connected(port) as three:
                assert await is_closed(three)
            assert "sandreel_gateway_connections_refused_total 1\n" in metrics.render()
            assert await is_served(one)
        async with asyncio.timeout(10):  # until the server has seen that it is gone
            while True:
                async with connected(port) as four:
                    if await is_served(four):
                        break


class FromAfar(asyncio.Transport):
    """A connection of a container, which has an address of its own: this machine's own are all loopback to us."""

    def __init__(self, host: str) -> None:
        super().__init__({"peername": (host, 40000)})
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


async def test_one_sandbox_does_not_take_the_connections_of_all() -> None:
    async with served(max_connections_per_address=2) as (_, _, runner):
        server = runner.server
        assert server is not None

        def connect(host: str) -> tuple[web.RequestHandler, FromAfar]:
            handler, transport = server(), FromAfar(host)
            server.connection_made(handler, transport)
            return handler, transport

        first, _ = connect("10.1.0.2")
        assert not connect("10.1.0.2")[1].aborted
        turned_away, transport = connect("10.1.0.2")
        assert transport.aborted
        server.connection_lost(turned_away)
        assert not connect("10.1.0.3")[1].aborted
        server.connection_lost(first)
        assert not connect("10.1.0.2")[1].aborted
        assert not any(connect("127.0.0.1")[1].aborted for _ in range(5)), "where sandboxes share it"
        server._connections.clear()  # they have never been


@pytest.mark.parametrize("sent", [b"", b"POST /anthropic/v1/messages HTTP/1.1\r\nhost: x\r\nx-api"])
async def test_who_does_not_ask_is_let_go(sent: bytes) -> None:
    async with served(keep_alive_s=0.2) as (port, _, _):
        async with connected(port) as streams:
            streams[1].write(sent)
            assert await is_closed(streams)


def test_a_machine_that_cannot_have_so_many_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, 64))
    with pytest.raises(Misconfigured, match=r"max_connections .* needs 2624 open files, and this process may have 64"):
        front(answer, Settings(), GatewayMeasures(Metrics()))
