"""What the egress proxy costs: bytes a second and the first byte, beside tinyproxy and beside no proxy, in turn.

All on loopback, so what is measured is the proxies' own work: the proxy is told for this that 127.0.0.1 is global.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from bench.figure import Figure, median, percentile
from bench.rig import Lacking, Rig

MIB = 1 << 20
BYTES = 512 * MIB
ROUNDS = 5
CONNECTIONS = 300

# Sends as many bytes as it is asked for.
SOURCE = """
import socket, threading
listening = socket.create_server(('127.0.0.1', 0), backlog=64)
print(listening.getsockname()[1], flush=True)
block = memoryview(bytes(1 << 20))
def serve(client):
    with client:
        left = int(client.recv(12))
        while left:
            left -= client.send(block[: min(left, len(block))])
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""


async def egress(rig: Rig) -> list[Figure]:
    """The egress proxy: bytes a second and the first byte; beside tinyproxy and beside none.

    It is to be no worse than the usual one in C for what agents load, and near it for the first byte. Raises Lacking.
    """
    if shutil.which("tinyproxy") is None:
        raise Lacking("tinyproxy is the reference and is not here (apt-get install tinyproxy-bin)")
    amount = int(BYTES * rig.scale) or 1
    async with _started(sys.executable, "-c", SOURCE) as source:
        child = (sys.executable, "-m", "bench.egress", str(source))
        async with _started(*child) as ours, _tinyproxy() as theirs:
            ways: dict[str, Callable[[], socket.socket]] = {
                "ours": lambda: _through(ours, 443),
                "tinyproxy": lambda: _through(theirs, source),
                "direct": lambda: socket.create_connection(("127.0.0.1", source)),
            }
            rates: dict[str, list[float]] = {name: [] for name in ways}
            waits: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(ROUNDS):  # in turn, so that a busy moment of the machine is nobody's alone
                for name, way in ways.items():
                    rates[name].append(await asyncio.to_thread(_load, way, amount))
            for _ in range(CONNECTIONS):
                for name, way in ways.items():
                    waits[name].append(await asyncio.to_thread(_first_byte, way))
    first = {name: percentile(times, 0.5) * 1e3 for name, times in waits.items()}
    return [
        Figure(
            *("egress: bytes through one tunnel", "MiB/s", median(rates["ours"]), 1.0, median(rates["tinyproxy"])),
            *("tinyproxy", True),
            detail={"direct MiB/s": median(rates["direct"])},
        ),
        Figure(
            *("egress: connection → first byte, p50", "ms", first["ours"], 3.0, first["tinyproxy"], "tinyproxy"),
            detail={"p99 ms": percentile(waits["ours"], 0.99) * 1e3, "direct p50 ms": first["direct"]},
        ),
    ]


def _through(proxy: int, port: int) -> socket.socket:
    """A tunnel to that port. Blocking."""
    made = socket.create_connection(("127.0.0.1", proxy))
    made.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        data = made.recv(4096)
        assert data, head
        head += data
    assert b" 200 " in head, head
    return made


def _load(way: Callable[[], socket.socket], amount: int) -> float:
    """MiB a second. Blocking."""
    buffer = bytearray(MIB)
    with way() as made:
        began = time.perf_counter()
        made.sendall(str(amount).encode())
        got = 0
        while count := made.recv_into(buffer):
            got += count
        took = time.perf_counter() - began
    assert got == amount, (got, amount)
    return amount / MIB / took


def _first_byte(way: Callable[[], socket.socket]) -> float:
    """Seconds. Blocking."""
    began = time.perf_counter()
    with way() as made:
        made.sendall(b"1")
        assert len(made.recv(16)) == 1
        return time.perf_counter() - began


@contextlib.asynccontextmanager
async def _started(*argv: str) -> AsyncIterator[int]:
    """A child that prints its port."""
    child = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    try:
        async with asyncio.timeout(60):
            port = int(await child.stdout.readline())
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGKILL)
        await child.wait()


@contextlib.asynccontextmanager
async def _tinyproxy() -> AsyncIterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="sandreel-bench-") as folder:
        config = Path(folder) / "tinyproxy.conf"
        config.write_text(f"Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 100\nLogLevel Error\n")
        child = await asyncio.create_subprocess_exec(
            *("tinyproxy", "-d", "-c", str(config)), stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(20):
                while True:
                    with contextlib.suppress(OSError):
                        socket.create_connection(("127.0.0.1", port)).close()
                        break
                    await asyncio.sleep(0.05)
            yield port
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGKILL)
            await child.wait()


async def _serve(source: int) -> None:
    """Our proxy as it is, but that 127.0.0.1 counts as global and its port 443 is the source's."""
    from ipaddress import ip_address
    from typing import Any

    from sandreel_core.bus.memory import MemoryBus
    from sandreel_core.bus.streams import ensure_installation
    from sandreel_core.egress.address import Address
    from sandreel_core.egress.dial import dial
    from sandreel_core.egress.register import Place, Register, documents
    from sandreel_core.egress.service import Egress
    from sandreel_core.egress.settings import Settings
    from sandreel_core.egress.tunnel import End
    from sandreel_core.health import Health
    from sandreel_core.metrics import Metrics

    async def to_the_source(addresses: Sequence[Address], port: int, **limits: Any) -> End:
        return await dial(addresses, source, **limits)

    bus = MemoryBus()
    await ensure_installation(bus)
    await bus.ensure([documents()])
    await Register(bus).place(ip_address("127.0.0.1"), Place("bench", "b1", "1-1"))
    await Egress(
        bus,
        Settings(listen="127.0.0.1:0"),
        partitions=1,
        health=Health("egress", version="bench", pid=1, monotonic=time.monotonic),
        metrics=Metrics(),
        by_address=lambda target, found, also: (found, None),
        dial=to_the_source,
    ).run(lambda where: print(where[1], flush=True))


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
