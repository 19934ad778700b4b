"""The egress proxy on loopback: every client address is a session's, and names lead to servers of the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.port import Bus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.usage import EgressDenied
from sandreel_core.egress import decision
from sandreel_core.egress.address import Address, Network, refusal
from sandreel_core.egress.dial import dial
from sandreel_core.egress.register import Place, Register, documents
from sandreel_core.egress.service import Egress
from sandreel_core.egress.settings import Settings
from sandreel_core.egress.target import Target
from sandreel_core.egress.tunnel import End
from sandreel_core.errors import NotFound
from sandreel_core.health import Health
from sandreel_core.metrics import Metrics

LOOPBACK = ip_network("127.0.0.0/8")
ONE, TWO, NOBODY = "127.0.0.2", "127.0.0.3", "127.0.0.9"  # addresses that clients come from
PLACES = {ONE: Place("acme", "s1", "1-1"), TWO: Place("acme", "s2", "1-1")}
FAR = "127.0.0.1"
LIMIT_S = 20


def loopback_is_global(
    target: Target, found: Sequence[Address], also: Iterable[Network] = ()
) -> tuple[Sequence[Address], decision.Answer | None]:
    """As the real one, but for 127.0.0.1, where the servers of the test are."""
    usable = [address for address in found if address == ip_address(FAR) or refusal(address, also) is None]
    return (usable, None) if usable else decision.by_address(target, found, also)


@dataclass
class Gate:
    """A proxy that serves. `names`: what is looked up, by name; each look-up takes the next answer, the last one stays.

    ports   where on 127.0.0.1 a connection to port 443 (or 80) really goes
    dialled every address that was dialled
    """

    bus: Bus
    register: Register
    names: dict[str, list[list[str]]]
    ports: dict[int, int] = field(default_factory=dict)
    dialled: list[str] = field(default_factory=list)
    looked_up: list[str] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)
    health: Health = field(default_factory=lambda: Health("egress", version="1", pid=1, monotonic=time.monotonic))
    port: int = 0
    clients: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self, source: str = ONE) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0), limit=1 << 20)
        self.clients.append(writer)
        return reader, writer

    async def ask(self, request: str, source: str = ONE) -> str:
        """The whole answer to a request that gets no tunnel."""
        reader, writer = await self.connect(source)
        writer.write(request.encode())
        async with asyncio.timeout(LIMIT_S):
            answer = await reader.read()
        writer.close()
        return answer.decode()

    async def tunnel(
        self, host: str = "far.example:443", source: str = ONE
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.connect(source)
        writer.write(connect_to(host).encode())
        async with asyncio.timeout(LIMIT_S):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head + await reader.read()
        return reader, writer

    async def told(self, count: int, session: str = "s1") -> list[EgressDenied]:
        """The first `count` refusals in the session's stream."""
        found: list[EgressDenied] = []
        async with asyncio.timeout(LIMIT_S):
            while len(found) < count:
                await asyncio.sleep(0.02)
                found = await self.denials(session)
        return found

    async def denials(self, session: str = "s1") -> list[EgressDenied]:
        """Those that are there now."""
        found, sequence = list[EgressDenied](), 0
        while (stored := await self.bus.next("REEL-0", f"evt.0.acme.{session}.egress", after=sequence)) is not None:
            sequence = stored.sequence
            data = decode_event(stored.subject, stored.body).data
            assert isinstance(data, EgressDenied)
            found.append(data)
        return found

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not holds():
                await asyncio.sleep(0.01)

    def look_up(self, name: str) -> Sequence[Address]:
        self.looked_up.append(name)
        answers = self.names.get(name)
        if not answers:
            raise NotFound(f"{name} has no address")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ip_address(each) for each in answer]

    async def dial(self, addresses: Sequence[Address], port: int, **limits: Any) -> End:
        self.dialled += [str(address) for address in addresses]
        return await dial(addresses, self.ports[port], **limits)


def connect_to(host: str) -> str:
    return f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"


@asynccontextmanager
async def gate(
    *,
    bus: Bus | None = None,
    look_up: Callable[[str], Sequence[Address]] | None = None,
    host: str = "127.0.0.1",
    **settings: Any,
) -> AsyncIterator[Gate]:
    """A proxy for the two sessions of PLACES on a memory bus of its own, unless one is given."""
    async with AsyncExitStack() as stack:
        if bus is None:
            bus = MemoryBus()
            stack.push_async_callback(bus.close)
        await ensure_installation(bus)
        await bus.ensure([documents()])
        register = Register(bus)
        for address, place in PLACES.items():
            await register.place(ip_address(address), place)
        here = Gate(bus, register, {"far.example": [[FAR]]})
        egress = Egress(
            bus,
            Settings(listen=f"{host}:0", **settings),
            partitions=1,
            health=here.health,
            metrics=here.metrics,
            look_up=look_up or here.look_up,
            by_address=loopback_is_global,
            dial=here.dial,
        )
        listening = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(egress.run(lambda where: listening.set_result(where[1])))
        try:
            done, _ = await asyncio.wait([task, listening], timeout=LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
            if task in done:
                await task
            here.port = await listening
            yield here
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await _gone(here.clients)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[int]:
    """A server on 127.0.0.1; yields its port. Its connections are cut when the block ends."""
    writers: set[asyncio.StreamWriter] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            await serve(reader, writer)
        except OSError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(one, "127.0.0.1", 0, limit=1 << 20)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await _gone(writers)


async def _gone(writers: Iterable[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.transport.abort()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
