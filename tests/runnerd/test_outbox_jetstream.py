"""The outbox over a real server: killed in mid-window, cut off, silent for longer than the duplicate window."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace
from nats.aio.client import Client

from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.contract import exec as c
from sandreel_core.embedded.nats import NatsServer
from sandreel_runnerd.outbox import Outbox
from sandreel_runnerd.recorder import Recorder
from sandreel_runnerd.spool import open_spool
from tests.runnerd.test_outbox import COMMAND
from tests.support.execlog import END, EPOCH, REEL, SUBJECTS, events, heads, lines, read
from tests.support.execlog import line as block
from tests.support.nats import Connect, connect_to
from tests.support.proxy import Proxy

COUNT = 600
Fault = Callable[[], Awaitable[None]]


@asynccontextmanager
async def outbox(bus: JetStreamBus, others: JetStreamBus) -> AsyncGenerator[Outbox, None]:
    """A runnerd's outbox beside a spawner that answers `log` from the stream."""
    await others.ensure([replace(REEL, duplicate_window_s=0.5)])

    async def answer(subject: str, body: bytes) -> bytes:
        return await heads(others, body)

    async with (
        asyncio.timeout(60),
        open_spool(1 << 20) as spool,
        others.serve(SUBJECTS.request("spawner", "log"), answer),
        Outbox(
            bus, spool, SUBJECTS, boot_id="b1", epoch=EPOCH, on_dead=lambda error: None, ack_timeout_s=0.5
        ).running() as made,
    ):
        yield made


async def chatter(record: Recorder, faults: dict[int, Fault]) -> None:
    """An exec of COUNT blocks; before some of them something goes wrong."""
    await record.accept(c.Accepted(boot_id="b1"), command=COMMAND)
    for number in range(1, COUNT + 1):
        fault = faults.get(number)
        if fault is not None:
            await fault()
        await record.record(block(number, 1000))
        if number % 16 == 0:
            await asyncio.sleep(0)
    await record.conclude(END)


async def check(bus: JetStreamBus, seen: list[int]) -> None:
    items = await read(bus)
    assert lines(items) == seen == list(range(1, COUNT + 1))
    assert [event.n for event in events(items)] == list(range(1, COUNT + 3))
    assert isinstance(events(items)[-1].data, c.Exited)


async def run(bus: JetStreamBus, others: JetStreamBus, faults: dict[int, Fault]) -> None:
    seen: list[int] = []

    async def watch() -> None:
        seen.extend(lines(await read(others, live=True)))

    async with outbox(bus, others) as made, asyncio.TaskGroup() as group:
        group.create_task(watch())
        group.create_task(chatter(made.recorder("e1"), faults))
    await check(others, seen)


async def test_law_4_the_server_is_killed_in_mid_window(nats_server: NatsServer, connect_bus: Connect) -> None:
    bus = await connect_bus()

    async def kill() -> None:
        nats_server.kill()
        await nats_server.wait()
        await nats_server.start()

    before = bus.generation
    await run(bus, await connect_bus(), {100: kill, 350: kill})
    assert bus.generation > before


async def test_a_connection_that_nats_py_fails_to_close_is_replaced(
    nats_server: NatsServer, connect_bus: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises while it writes its last bytes to a socket that broke, and then calls nobody back."""
    bus = await connect_bus()
    before = bus.generation

    async def broken(self: Client, status: int, do_cbs: bool = True) -> None:
        self._status = status
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]

    with monkeypatch.context() as patch:
        patch.setattr(Client, "_close", broken)
        nats_server.kill()
        await nats_server.wait()
        await nats_server.start()
        async with asyncio.timeout(10):
            assert await bus.wait_connected(before) > before


async def test_law_3_cuts_and_swallowed_answers_in_mid_window(nats_server: NatsServer, connect_bus: Connect) -> None:
    async with Proxy(nats_server.url) as proxy:
        bus = await connect_to(nats_server, url=proxy.url)
        later: list[asyncio.Task[None]] = []

        async def cut() -> None:
            proxy.cut()

        async def deaf() -> None:
            proxy.drop_down = True
            later.append(asyncio.create_task(mend(0.2)))

        async def dumb() -> None:
            proxy.drop_up = True
            later.append(asyncio.create_task(mend(0.2)))

        async def mend(after_s: float) -> None:
            await asyncio.sleep(after_s)
            proxy.drop_down = proxy.drop_up = False
            proxy.cut()

        try:
            await run(bus, await connect_bus(), {50: cut, 150: deaf, 300: dumb, 450: cut, 599: deaf})
        finally:
            await asyncio.gather(*later)
            await bus.close()


async def test_law_3_an_outage_longer_than_the_duplicate_window(nats_server: NatsServer, connect_bus: Connect) -> None:
    async with Proxy(nats_server.url) as proxy:
        bus = await connect_to(nats_server, url=proxy.url)

        async def outage() -> None:
            proxy.drop_down = True  # what is on its way is stored, and no answer comes
            proxy.refuse = True
            await asyncio.sleep(0.1)
            proxy.cut()
            asyncio.get_running_loop().call_later(1.5, mend)

        def mend() -> None:
            proxy.refuse = proxy.drop_down = False

        try:
            await run(bus, await connect_bus(), {200: outage})
        finally:
            await bus.close()
