"""The client over a real server, through its death."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from sandreel_core import clock
from sandreel_core.bus.port import Stream
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.client import Client, ClientSettings, ExecItem, Gap, Output
from sandreel_core.client.items import CaughtUp
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.errors import Denied, Misconfigured, Unavailable
from sandreel_core.settings import Bus
from tests.support.fake_roles import Roles, fake_roles
from tests.support.nats import Connect

ORG, SESSION = "acme", "s1"
STREAMS = [
    Stream("REEL-0", ("evt.0.>",), 1 << 30, metadata={"epoch": "e1"}),
    Stream("CMD", ("cmd.>",), 1 << 28, per_subject=1, discard_new_per_subject=True, metadata={"epoch": "e2"}),
]


@pytest.fixture
async def roles(connect_bus: Connect) -> AsyncIterator[Roles]:
    bus = await connect_bus()
    await bus.ensure(STREAMS)
    async with fake_roles(bus) as roles:
        yield roles


@pytest.fixture
def settings(nats_server: NatsServer, roles: Roles) -> ClientSettings:
    bus = Bus(nats_urls=(nats_server.url,), user="client", password=nats_server.password("client"))
    return ClientSettings(bus=bus, actor="tests")


@pytest.fixture
async def client(settings: ClientSettings) -> AsyncIterator[Client]:
    async with Client.connect(settings) as client:
        await client.create_session(ORG, SESSION, timeout_s=20)
        yield client


async def seen(client: Client, exec_id: str, after: ExecItem | None = None) -> list[ExecItem]:
    cursor = after.cursor if after else None
    async with asyncio.timeout(20), aclosing(client.follow(ORG, SESSION, exec_id, after=cursor)) as items:
        return [item async for item in items if not isinstance(item, CaughtUp | Gap)]


async def test_a_run_and_every_read_with_what_a_client_may_do(client: Client) -> None:
    result = await client.run(ORG, SESSION, ["lines", "1000"])
    [info] = await client.execs(ORG, SESSION)

    assert result.lines["stdout"] == 1000
    assert (info.exec_id, info.phase) == (result.exec_id, "exited")
    assert [one.session for one in await client.sessions(ORG)] == [SESSION]
    whole = await seen(client, info.exec_id)
    for place in (0, 3, len(whole) - 1):
        assert await seen(client, info.exec_id, whole[place]) == whole[place + 1 :]


async def test_law_7_two_clients_that_send_one_command_get_one_outcome(
    client: Client, settings: ClientSettings, roles: Roles
) -> None:
    command_id = clock.new_id()
    async with Client.connect(settings) as other:
        first, second = await asyncio.gather(
            client.exec(ORG, SESSION, ["print", "x"], exec="x1", command_id=command_id),
            other.exec(ORG, SESSION, ["print", "x"], exec="x1", command_id=command_id),
        )

    assert first.cursor == second.cursor
    assert roles.handled.count(command_id) == 1


async def test_a_viewer_sees_no_seam_when_the_server_dies(client: Client, nats_server: NatsServer) -> None:
    handle = await client.exec(ORG, SESSION, ["cat"], hold_stdin=True)
    items: list[ExecItem] = []
    async with asyncio.timeout(60), aclosing(handle.follow()) as following:
        async for item in following:
            items.append(item)
            if isinstance(item, CaughtUp):
                await handle.write_stdin("before\n")
                nats_server.kill()
                await nats_server.wait()
                asking = asyncio.create_task(handle.write_stdin("after\n", eof=True))
                await nats_server.start()
        await asking

    assert b"".join(item.data for item in items if isinstance(item, Output)) == b"before\nafter\n"
    numbers = [item.n for item in items if not isinstance(item, CaughtUp | Gap)]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_wrong_password_is_denied_and_no_server_unavailable(nats_server: NatsServer) -> None:
    with pytest.raises(Denied):
        async with Client.connect(nats_server.url, user="client", password="wrong", connect_timeout_s=5):
            pass
    with pytest.raises(Unavailable):
        async with Client.connect("nats://127.0.0.1:9", connect_timeout_s=0.3):
            pass


async def test_a_client_takes_the_number_of_partitions_from_the_installation(
    nats_server: NatsServer, connect_bus: Connect
) -> None:
    settings = ClientSettings(
        bus=Bus(nats_urls=(nats_server.url,), user="client", password=nats_server.password("client"))
    )
    async with Client.connect(settings, partitions=5) as client:
        assert client.partitions == 5, "nothing is installed yet that could say another"
    await ensure_installation(await connect_bus(), Bus(partitions=3))
    async with Client.connect(settings) as client:
        assert client.partitions == 3
    with pytest.raises(Misconfigured, match="made with 3 partitions, not 1"):
        async with Client.connect(settings, partitions=1):
            pass
