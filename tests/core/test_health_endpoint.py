"""The endpoint over real sockets: what it answers, and what a stranger cannot do to it."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest

from sandreel_core.errors import Misconfigured, Unavailable
from sandreel_core.health import Health
from sandreel_core.health_endpoint import MAX_CONNECTIONS, MAX_HEAD_BYTES, address, endpoint
from sandreel_core.health_reading import read
from sandreel_core.metrics import Family, Metrics

SIZE = Family("sandreel_size_bytes", "gauge", "How large.", ("what",))
QUICK_S = 0.5
LIMIT_S = 30


class Served:
    def __init__(self, port: int, health: Health, metrics: Metrics) -> None:
        self.port = port
        self.listen = f"127.0.0.1:{port}"
        self.health = health
        self.metrics = metrics

    async def send(self, request: bytes) -> bytes:
        """Everything that is answered, until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(LIMIT_S):
                return await reader.read()
        finally:
            writer.transport.abort()

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        answer = await self.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = answer.decode().partition("\r\n\r\n")
        return int(head.split()[1]), body


@asynccontextmanager
async def served(within_s: float = LIMIT_S) -> AsyncGenerator[Served, None]:
    health = Health("example", version="1", pid=7, monotonic=time.monotonic)
    metrics = Metrics()
    health.ready()
    async with endpoint("127.0.0.1:0", health, metrics, within_s=within_s) as (_, port):
        yield Served(port, health, metrics)


async def test_health_is_json_and_503_only_when_failing() -> None:
    async with served() as it:
        status, body = await it.get("/healthz")
        assert (status, json.loads(body)["status"]) == (200, "ok")
        it.health.trouble("nats", "lost")
        status, body = await it.get("/healthz?verbose=1")
        assert (status, json.loads(body)["status"]) == (200, "degraded")
        assert json.loads(body)["reasons"][0]["text"] == "lost"
        it.health.trouble("nats", "lost", fails_after_s=0)
        assert (await it.get("/healthz"))[0] == 503


async def test_both_documents_are_read_back() -> None:
    async with served() as it:
        it.metrics.gauge(SIZE).set(4.5, 'odd "\\\n')
        reading = await read(it.listen)
        assert (reading.report.role, reading.report.pid) == ("example", 7)
        assert reading.total("sandreel_size_bytes", what='odd "\\\n') == 4.5
        assert reading.total("sandreel_size_bytes", what="other") == 0


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/../healthz HTTP/1.1\r\n\r\n", 404),
        (b"GET http://x/metrics HTTP/1.1\r\n\r\n", 400),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\nsomething", 405),
        (b"\x16\x03\x01\x00\xee\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * (4 * MAX_HEAD_BYTES), 431),
    ],
)
async def test_what_else_is_asked_for_is_refused_and_the_connection_ends(request_: bytes, status: int) -> None:
    async with served() as it:
        answer = await it.send(request_)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert (await it.get("/healthz"))[0] == 200


async def test_head_has_no_body() -> None:
    async with served() as it:
        answer = await it.send(b"HEAD /metrics HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n")


async def test_a_request_that_does_not_end_is_cut_off() -> None:
    async with served(QUICK_S) as it:
        assert await it.send(b"GET /metrics HTTP/1.1\r\nX: ") == b""
        assert (await it.get("/healthz"))[0] == 200


async def test_one_who_does_not_read_is_cut_off() -> None:
    async with served(QUICK_S) as it:
        gauge = it.metrics.gauge(SIZE)
        for i in range(4000):
            gauge.set(i, f"{i}-" + "x" * 4000)  # more than any socket's buffers hold
        with socket.create_connection(("127.0.0.1", it.port)) as lazy:
            lazy.setblocking(False)
            lazy.send(b"GET /metrics HTTP/1.1\r\n\r\n")
            loop = asyncio.get_running_loop()
            await asyncio.sleep(2 * QUICK_S)  # it reads nothing for as long as it may, and longer
            got = 0
            async with asyncio.timeout(LIMIT_S):
                with suppress(ConnectionResetError):
                    while piece := await loop.sock_recv(lazy, 1 << 20):
                        got += len(piece)
        assert got < 4000 * 4000
        assert (await it.get("/healthz"))[0] == 200


async def test_connections_are_bounded_and_one_that_ends_makes_room() -> None:
    async with served() as it:
        idle = [await asyncio.open_connection("127.0.0.1", it.port) for _ in range(MAX_CONNECTIONS)]
        with pytest.raises(Unavailable, match="does not answer"):
            await read(it.listen)
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(LIMIT_S):
            while True:
                with suppress(Unavailable):
                    assert (await read(it.listen)).report.status == "ok"
                    break


async def test_a_wrong_number_is_500_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as it:
        broken = [True]

        def look() -> None:
            if broken:
                raise ValueError("a bug")

        it.metrics.before(look)
        assert (await it.get("/metrics"))[0] == 500
        assert "a document could not be made" in caplog.text
        broken.clear()
        assert (await it.get("/metrics"))[0] == 200


async def test_it_leaves_while_somebody_is_connected() -> None:
    async with asyncio.timeout(LIMIT_S):
        async with served() as it:
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        assert await reader.read() == b""
        writer.transport.abort()
        with pytest.raises(Unavailable, match="does not answer"):
            await read(it.listen)


async def test_a_port_that_is_taken_is_an_operators_error() -> None:
    async with served() as it:
        with pytest.raises(Misconfigured, match=rf"\[health\] listen: {it.listen} is taken by another program"):
            async with endpoint(it.listen, it.health, it.metrics):
                pass


async def test_who_answers_something_else_is_no_role() -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n<html>")
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1", 0) as server:
        with pytest.raises(Unavailable, match="is no role of sandreel"):
            await read(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")


@pytest.mark.parametrize("listen", ["9400", ":9400", "host:", "host:99999", "host:x"])
def test_an_address_that_is_none_is_said_to_be_none(listen: str) -> None:
    with pytest.raises(Misconfigured, match="expected HOST:PORT"):
        address(listen)


def test_addresses() -> None:
    assert address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert address("[::1]:9400") == ("::1", 9400)
