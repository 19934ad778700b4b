"""What the built-in gateway adds to a model call: to the first byte, to each piece of a stream, and to bulk; beside a direct
connection to the same provider in the same run.

The provider is a process that stamps what it sends with the machine's monotonic clock, so that a piece's way is measured, and not
the provider's pace. Streams begin each at its own moment, as those of the world do. The gateway is the real role, on the stack's own NATS.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import psutil

from bench.figure import Figure, percentile
from bench.rig import Rig, bus_of
from sandreel_bridge.gateway.client import GatewayClient
from sandreel_bridge.gateway.port import KeyTerms, key_name
from sandreel_core.clock import now
from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.place import free_port
from tests.support.http import opened

STREAMS, PER_S, SECONDS = 20, 100, 4.0
# Left out of a stream's pieces: until all streams have begun, which is at once here and never elsewhere. What a call costs is
# a figure of its own.
SETTLED_S = 0.5
CALLS = 200
BULK_MIB = 256
MODEL = "claude-sonnet-4-5"

# `max_tokens` says what: 1 a short answer, 2 a stream of stamped pieces, 3 bulk; `top_k` how much of it.
PROVIDER = """
import asyncio, json, random, sys, time
HEAD = b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n"
END = b'data: {"type": "message_delta", "usage": {"input_tokens": 1, "output_tokens": 1}}\\n\\ndata: {"type": "message_stop"}\\n\\n'
SHORT = b'{"type": "message", "model": "m", "content": [], "usage": {"input_tokens": 1, "output_tokens": 1}}'
BLOCK = b'data: {"type": "content_block_delta", "delta": {"text": "' + b"x" * 65000 + b'"}}\\n\\n'
def chunk(data):
    return b"%x\\r\\n%s\\r\\n" % (len(data), data)
async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = next(int(l.split(b":")[1]) for l in head.split(b"\\r\\n") if l.lower().startswith(b"content-length"))
            asked = json.loads(await reader.readexactly(length))
            if asked["max_tokens"] == 1:
                writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(SHORT) + SHORT)
            elif asked["max_tokens"] == 2:
                writer.write(HEAD)
                begin = asyncio.get_running_loop().time() + random.random() / 100  # streams of the world have no common beat
                for n in range(asked["top_k"]):
                    await asyncio.sleep(max(0, begin + n / 100 - asyncio.get_running_loop().time()))
                    writer.write(chunk(b'data: {"type": "content_block_delta", "t": %d}\\n\\n' % time.monotonic_ns()))
                writer.write(chunk(END) + b"0\\r\\n\\r\\n")
            else:
                writer.write(HEAD)
                for _ in range(asked["top_k"] * 16):
                    writer.write(chunk(BLOCK))
                    await writer.drain()
                writer.write(chunk(END) + b"0\\r\\n\\r\\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

# What any process between the two costs, whatever it does: the wakings of one more, on the machine's processors.
RELAY = """
import asyncio, sys
async def pump(reader, writer):
    try:
        while data := await reader.read(262144):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()
async def serve(reader, writer):
    there = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


async def gateway(rig: Rig) -> list[Figure]:
    """What the built-in gateway adds to a piece of a stream and to the first byte, and bulk; beside a direct connection."""
    async with (
        _server(PROVIDER) as provider,
        _server(RELAY, provider.rpartition(":")[2]) as relay,
        _gateway(rig, provider) as (through, key, pid),
    ):
        ways = {"direct": f"{provider}/v1/messages", "through": f"{through}/anthropic/v1/messages"}
        pieces, cpu_s, seconds = {}, 0.0, SECONDS * min(rig.scale, 4)
        for name, url in {"relay": f"{relay}/v1/messages", **ways}.items():
            before = _cpu_s(pid)
            pieces[name] = await _pieces(url, key, seconds)
            cpu_s = _cpu_s(pid) - before
        first: dict[str, list[float]] = {name: [] for name in ways}
        before = _cpu_s(pid)
        for _ in range(CALLS):
            for name, url in ways.items():
                first[name].append(await _first(url, key))
        a_call_s = (_cpu_s(pid) - before) / CALLS
        mib = max(16, int(BULK_MIB * rig.scale))
        rates, used = {}, 0.0
        for name, url in ways.items():
            before = _cpu_s(pid)
            rates[name] = mib / await _bulk(url, key, mib)
            used = _cpu_s(pid) - before
    added = {share: (_at(pieces, "through", share) - _at(pieces, "direct", share)) * 1e3 for share in (0.5, 0.99)}
    return [
        Figure(
            *("gateway: added to a piece, 20 streams of 100/s, p99", "ms", added[0.99], 1.0),
            detail={
                "added p50 ms": added[0.5],
                "through p99 ms": _at(pieces, "through", 0.99) * 1e3,
                "direct p99 ms": _at(pieces, "direct", 0.99) * 1e3,
                "a relay that only copies, added p99 ms": (_at(pieces, "relay", 0.99) - _at(pieces, "direct", 0.99))
                * 1e3,
                "gateway's CPU a piece, ms": cpu_s / (STREAMS * PER_S * seconds) * 1e3,
            },
        ),
        Figure(
            *(
                "gateway: added to the first byte, p50",
                "ms",
                (percentile(first["through"], 0.5) - percentile(first["direct"], 0.5)) * 1e3,
                2.0,
            ),
            detail={
                "direct p50 ms": percentile(first["direct"], 0.5) * 1e3,
                "through p99 ms": percentile(first["through"], 0.99) * 1e3,
                "gateway's CPU a call, ms": a_call_s * 1e3,
            },
        ),
        Figure(
            *("gateway: bulk, for a second of its core", "MiB/s", mib / used, 50.0),
            higher_is_better=True,
            detail={"through MiB/s": rates["through"], "direct MiB/s": rates["direct"]},
        ),
    ]


def _at(pieces: dict[str, list[float]], way: str, share: float) -> float:
    return percentile(pieces[way], share)


async def _pieces(url: str, key: str, seconds: float) -> list[float]:
    """Seconds from the provider's stamp to our reading it, of every piece of every stream."""
    found: list[float] = []
    pieces = int(seconds * PER_S)

    async def one() -> None:
        ways: list[float] = []
        async with opened(url, headers={"x-api-key": key}, body=_body(2, pieces)) as answer:
            async for piece in answer.pieces():
                at = time.monotonic_ns()
                stamped = (line for line in piece.split(b"\n") if b'"t":' in line)
                ways.extend((at - json.loads(line[6:])["t"]) / 1e9 for line in stamped)
            assert answer.complete
        assert len(ways) == pieces, len(ways)
        found.extend(ways[int(SETTLED_S * PER_S) :])

    await asyncio.gather(*(one() for _ in range(STREAMS)))
    return found


async def _first(url: str, key: str) -> float:
    """Seconds from a connection that is asked for to the answer's head."""
    began = time.perf_counter()
    async with opened(url, headers={"x-api-key": key}, body=_body(1, 1)) as answer:
        took = time.perf_counter() - began
        await answer.read()
        assert answer.status == 200, answer.body
    return took


async def _bulk(url: str, key: str, mib: int) -> float:
    """Seconds."""
    began, got = time.perf_counter(), 0
    async with opened(url, headers={"x-api-key": key}, body=_body(3, mib)) as answer:
        while data := await answer.reader.read(1 << 20):
            got += len(data)
            if data.endswith(b"0\r\n\r\n"):
                break
    assert got > mib * 16 * 65000, got
    return time.perf_counter() - began


def _body(what: int, much: int) -> dict[str, object]:
    return {"model": MODEL, "max_tokens": what, "top_k": much, "stream": what > 1, "messages": []}


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@contextlib.asynccontextmanager
async def _server(program: str, *words: str) -> AsyncIterator[str]:
    """Its address."""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, *words, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(await child.stdout.readline())}"
    finally:
        await _ended(child)


@contextlib.asynccontextmanager
async def _gateway(rig: Rig, provider: str) -> AsyncIterator[tuple[str, str, int]]:
    """(its address, a virtual key, its pid)"""
    place, port = rig.stack.place, free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "SANDREEL_BUS_NATS_URLS": f"nats://127.0.0.1:{place.keys().nats_port}",
        "SANDREEL_BUS_CREDS_FILE": str(Authority(place.identity).creds_file("gateway")),
        "SANDREEL_GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "SANDREEL_GATEWAY_STATE_DIRECTORY": str(place.data / "bench-gateway"),
        "SANDREEL_GATEWAY_ANTHROPIC_API_KEY": "sk-bench",
        "SANDREEL_GATEWAY_ANTHROPIC_URL": provider,
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sandreel_bridge.gateway"), env=environ, stderr=asyncio.subprocess.DEVNULL
    )
    bus = await bus_of(rig.stack)
    try:
        client, name = GatewayClient(bus), key_name("bench", "s1", 1, "t1", 1)
        expires = now() + timedelta(hours=1)
        terms = KeyTerms(
            org="bench", session="s1", turn="t1", models=(MODEL,), budget_micro_usd=10**12, expires_at=expires
        )
        await _until(lambda: client.enforce("bench"))
        yield f"http://127.0.0.1:{port}", (await client.mint(name, terms)).value, child.pid
        await client.revoke(name)
    finally:
        await bus.close()
        await _ended(child)


async def _until(ask: Callable[[], Awaitable[object]]) -> None:
    from sandreel_core.errors import Unavailable

    async with asyncio.timeout(60):
        while True:
            try:
                await ask()
                return
            except Unavailable:
                await asyncio.sleep(0.1)


async def _ended(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    await child.wait()
