"""What only a real server can do to the bus: a bad network, permissions, consumers that vanish."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import aclosing
from pathlib import Path

import pytest

from sandreel_core.bus.credentials import Creds
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.jetstream_link import Link
from sandreel_core.bus.port import CaughtUp, Item, Stream, Work
from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.errors import Denied, Malformed, NotFound, SandreelError, Unavailable
from tests.support.nats import Connect, connect_to
from tests.support.proxy import Proxy

LIMIT_S = 30
REEL = Stream("REEL-0", ("evt.0.>",), 1 << 26)
SUBJECT = "evt.0.acme.s1.exec.e1"


async def api(bus: JetStreamBus, verb: str) -> None:
    """One request of JetStream's own, as an operator's tool would send it."""
    await bus.request(f"$JS.API.{verb}", b"")


async def test_connecting_says_who_is_not_there_and_who_is_not_let_in(nats_server: NatsServer) -> None:
    with pytest.raises(Denied, match="role"):
        await JetStreamBus.connect(
            [nats_server.url], name="t", user="role", password="wrong", connect_timeout_s=LIMIT_S
        )
    with pytest.raises(Denied):
        await JetStreamBus.connect([nats_server.url], name="t", connect_timeout_s=LIMIT_S)
    await nats_server.stop()
    with pytest.raises(Unavailable, match="no NATS server"):
        await JetStreamBus.connect([nats_server.url], name="t", connect_timeout_s=0.3)


async def test_it_waits_for_a_server_that_comes_later(nats_server: NatsServer, connect_bus: Connect) -> None:
    await nats_server.stop()
    connecting = asyncio.ensure_future(connect_bus())
    done, _ = await asyncio.wait([connecting], timeout=0.2)
    assert not done
    await nats_server.start()
    assert (await asyncio.wait_for(connecting, LIMIT_S)).connected


async def test_a_service_that_could_not_be_opened_is_not_there_twice(
    connect_bus: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, client = await connect_bus(), await connect_bus()
    called: list[str] = []

    async def handle(subject: str, body: bytes) -> bytes:
        called.append(subject)
        return body

    async def slow(_: Link) -> None:
        raise Unavailable("the server did not answer in time")

    with monkeypatch.context() as patched:
        patched.setattr(Link, "flush", slow)
        with pytest.raises(Unavailable):
            await bus.serve("req.it", handle).__aenter__()
    async with bus.serve("req.it", handle):
        for text in (b"1", b"2"):
            assert await client.request("req.it", text) == text
        await (await bus._link()).flush()
    assert len(called) == 2


async def test_a_service_is_there_as_soon_as_it_is_open(connect_bus: Connect) -> None:
    bus, client = await connect_bus(), await connect_bus()

    async def handle(subject: str, body: bytes) -> bytes:
        return body

    for number in range(200):  # nats-py alone lets one in a hundred ask too early
        async with bus.serve(f"req.{number}", handle):
            assert await client.request(f"req.{number}", b"1") == b"1"


async def test_the_secrets_of_the_server_are_its_owners_alone(nats_server: NatsServer) -> None:
    for name in ("passwords.json", "nats.json"):
        assert (nats_server.data / name).stat().st_mode & 0o077 == 0
    assert nats_server.password("role") not in nats_server.log_path.read_text()


async def test_a_user_is_denied_what_it_may_not_publish(connect_bus: Connect) -> None:
    role, runnerd = await connect_bus(), await connect_bus("runnerd")
    await role.ensure([REEL])
    assert await runnerd.append(SUBJECT, b"1") == 1
    with pytest.raises(Denied):
        await runnerd.append("evt.0.acme.s1.session", b"forged")
    with pytest.raises(Denied):
        await runnerd.state("REEL-0")
    answers: asyncio.Queue[tuple[int, int | SandreelError]] = asyncio.Queue()
    async with runnerd.channel(lambda token, answer: answers.put_nowait((token, answer))) as channel:
        await channel.send("evt.0.acme.s1.session", b"forged", 1)
        await channel.send(SUBJECT, b"2", 2)
        found = dict([await asyncio.wait_for(answers.get(), LIMIT_S) for _ in range(2)])
    assert isinstance(found[1], Denied)
    assert found[2] == 2


async def test_runnerd_and_client_may_do_their_work(connect_bus: Connect) -> None:
    role, runnerd, client = [await connect_bus(user) for user in ("role", "runnerd", "client")]
    await role.ensure([REEL, Stream("CMD", ("cmd.>",), 1 << 20)])
    command = "cmd.runnerd.acme.s1.01938f2e-7c00-7abc-8def-0123456789ab"
    await client.append(command, b"go")
    await role.make_feed("CMD", "runnerd-s1", ["cmd.runnerd.acme.s1.*"], after=0)

    async def handler(subject: str, body: bytes) -> bytes:
        return b"well"

    async with asyncio.timeout(LIMIT_S), aclosing(runnerd.feed("CMD", "runnerd-s1")) as batches:
        assert [stored.body for stored in await anext(batches)] == [b"go"]
        async with (
            runnerd.serve("req.runnerd.acme.s1.health", handler),
            role.serve("req.spawner.*.*.log", handler, group="spawner"),
        ):
            assert await client.request("req.runnerd.acme.s1.health", b"") == b"well"
            assert await runnerd.request("req.spawner.acme.s1.log", b"") == b"well"
    await runnerd.append(SUBJECT, b"1")
    async with asyncio.timeout(LIMIT_S), aclosing(client.follow("REEL-0", [SUBJECT], live=False)) as items:
        assert [type(item) async for item in items] == [list, CaughtUp]


async def test_a_reader_goes_on_when_its_consumer_vanishes(connect_bus: Connect) -> None:
    bus = await connect_bus()
    await bus.ensure([REEL])
    async with asyncio.timeout(LIMIT_S), aclosing(bus.follow("REEL-0", [SUBJECT])) as items:
        assert await anext(items) == CaughtUp(0)
        for number in range(1, 4):
            await bus.append(SUBJECT, str(number).encode())
            item = await anext(items)
            assert isinstance(item, list)
            assert [stored.sequence for stored in item] == [number]
            for name in await consumers(bus, "REEL-0"):
                await api(bus, f"CONSUMER.DELETE.REEL-0.{name}")


async def test_a_reader_does_not_hang_on_a_stream_that_ends_before_what_it_has_read(connect_bus: Connect) -> None:
    bus = await connect_bus()
    await bus.ensure([REEL])
    async with asyncio.timeout(LIMIT_S), aclosing(bus.follow("REEL-0", [SUBJECT])) as items:
        assert await anext(items) == CaughtUp(0)
        for number in range(1, 3):
            await bus.append(SUBJECT, str(number).encode())
            assert isinstance(await anext(items), list)
        await api(bus, "STREAM.DELETE.REEL-0")
        await bus.ensure([REEL])
        await bus.append(SUBJECT, b"another first")
        with pytest.raises(Malformed, match="ends at 1 and was read up to 2"):
            await anext(items)


async def test_work_is_made_again_when_it_vanishes(connect_bus: Connect) -> None:
    bus = await connect_bus()
    work = Work("REEL-0", "w", ("evt.0.>",))
    await bus.ensure([REEL], [work])
    async with asyncio.timeout(LIMIT_S), aclosing(bus.work(work)) as deliveries:
        await bus.append(SUBJECT, b"1")
        await (await anext(deliveries)).ack()
        await api(bus, "CONSUMER.DELETE.REEL-0.w")
        await bus.append(SUBJECT, b"2")
        async for delivery in deliveries:
            await delivery.ack()
            if delivery.stored.body == b"2":
                return


async def test_a_network_that_cuts_and_holds_makes_no_seam(nats_server: NatsServer, connect_bus: Connect) -> None:
    writer = await connect_bus()
    await writer.ensure([REEL])
    async with Proxy(nats_server.url) as proxy:
        reader = await connect_bus(url=proxy.url)
        seen: list[int] = []
        async with asyncio.timeout(LIMIT_S), aclosing(reader.follow("REEL-0", [SUBJECT])) as items:
            for round in range(6):
                if round == 2:
                    proxy.hold_down = True
                for _ in range(20):
                    await writer.append(SUBJECT, bytes(100))
                proxy.cut()
                proxy.hold_down = False
                while len(seen) < 20 * (round + 1):
                    item: Item = await anext(items)
                    seen += [stored.sequence for stored in item] if isinstance(item, list) else []
        assert proxy.connections > 1
        assert seen == list(range(1, 121))


async def test_what_was_published_into_a_dead_connection_is_not_sent_later(
    nats_server: NatsServer, connect_bus: Connect
) -> None:
    other = await connect_bus()
    await other.ensure([REEL])
    async with Proxy(nats_server.url) as proxy:
        bus = await connect_bus(url=proxy.url)
        proxy.drop_up = True
        appending = asyncio.ensure_future(bus.append(SUBJECT, b"lost"))
        asyncio.get_running_loop().call_later(0.1, proxy.cut)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(appending, LIMIT_S)
        proxy.drop_up = False
        await asyncio.wait_for(bus.wait_connected(1), LIMIT_S)
        assert await bus.append(SUBJECT, b"next") == 1


async def test_a_feed_is_gone_after_a_cut_because_a_delivery_may_be_lost(
    nats_server: NatsServer, connect_bus: Connect
) -> None:
    writer = await connect_bus()
    await writer.ensure([REEL])
    await writer.make_feed("REEL-0", "f", [SUBJECT], after=0)
    async with Proxy(nats_server.url) as proxy:
        reader = await connect_bus(url=proxy.url)
        async with asyncio.timeout(LIMIT_S), aclosing(reader.feed("REEL-0", "f")) as batches:
            await writer.append(SUBJECT, b"1")
            assert len(await anext(batches)) == 1
            proxy.cut()
            with pytest.raises(NotFound):
                await anext(batches)


async def consumers(bus: JetStreamBus, stream: str) -> list[str]:
    import msgspec

    answer = msgspec.json.decode(await bus.request(f"$JS.API.CONSUMER.NAMES.{stream}", b""))
    return list(answer["consumers"] or [])


async def test_streams_of_a_server_with_passwords_are_there_when_it_knows_jwts() -> None:
    data = Path(tempfile.mkdtemp(prefix="sandreel-nats-"))
    data.chmod(0o711)
    try:
        async with NatsServer(data / "nats") as before:
            bus = await connect_to(before)
            await bus.ensure([REEL])
            assert await bus.append(SUBJECT, b"kept") == 1
            await bus.close()
        authority = Authority(data / "identity")
        async with NatsServer(data / "nats", authority=authority) as server:
            identity = Creds.parse(authority.creds_file("operator").read_text())
            bus = await JetStreamBus.connect([server.url], name="t", identity=identity, connect_timeout_s=LIMIT_S)
            stored = await bus.last(REEL.name, SUBJECT)
            assert stored is not None
            assert stored.body == b"kept"
            await bus.close()
    finally:
        shutil.rmtree(data)
