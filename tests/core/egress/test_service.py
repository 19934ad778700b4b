"""What the role follows and tells: rules that change, refusals in the stream, and what happens without NATS."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from ipaddress import IPv4Address, ip_address

import pytest

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.descriptors import make_room
from sandreel_core.egress import service
from sandreel_core.egress.address import Address
from sandreel_core.egress.measures import EGRESS
from sandreel_core.egress.register import Place, Register, Table, documents
from sandreel_core.egress.rules import Scope
from sandreel_core.egress.settings import Settings
from sandreel_core.errors import Malformed, Misconfigured
from sandreel_core.health import Health
from sandreel_core.metrics import Metrics
from tests.support.egress import FAR, LIMIT_S, NOBODY, ONE, TWO, Gate, connect_to, echo, gate, server

pytestmark = pytest.mark.timeout(60)
HERE = ip_address("10.204.0.5")


async def test_refusals_are_told_once_with_their_count() -> None:
    bus = MemoryBus()
    async with gate(bus=bus) as here:
        for _ in range(20):
            await here.ask(connect_to("169.254.169.254:443"))
        await here.ask(connect_to("far.example:25"), TWO)
        told = await here.told(1)
        assert (told[0].host, told[0].port) == ("169.254.169.254", 443)
        assert "not global: link-local" in told[0].why
        assert [(each.host, each.port) for each in await here.told(1, "s2")] == [("far.example", 25)]
    # What was counted last is told before the role ends.
    assert sum(each.count for each in await here.denials()) == 20
    assert len(await here.denials()) < 10
    await bus.close()


async def test_rules_change_while_it_runs_and_cut_what_they_refuse() -> None:
    async with server(echo) as far, gate() as here, asyncio.timeout(LIMIT_S):
        here.ports[443] = far
        reader, writer = await here.tunnel()
        other_reader, other = await here.tunnel(source=TWO)
        await here.register.allow(Scope("acme", "s1"), ["*.test"])
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        assert "allowlist of acme/s1" in await here.ask(connect_to("far.example:443"))
        other.write(b"x")
        assert await other_reader.readexactly(1) == b"x"
        await here.register.allow(Scope("acme", "s1"), None)
        while "200" not in await _status(here):
            await asyncio.sleep(0.02)
        assert sum(each.count for each in await here.told(1)) >= 1
        writer.close()
        other.close()


async def _status(here: Gate) -> str:
    reader, writer = await here.connect()
    writer.write(connect_to("far.example:443").encode())
    line = await reader.readline()
    writer.close()
    return line.decode()


async def test_a_list_that_changes_while_a_name_is_looked_up_counts() -> None:
    """Checked before the look-up and again behind the handshake: nothing slips through between the two."""
    asked, answer, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

    def look_up(name: str) -> list[IPv4Address]:
        loop.call_soon_threadsafe(asked.set)
        asyncio.run_coroutine_threadsafe(answer.wait(), loop).result(LIMIT_S)
        return [IPv4Address(FAR)]

    async with server(echo) as far, gate(look_up=look_up) as here, asyncio.timeout(LIMIT_S):
        here.ports[443] = far
        asking = asyncio.ensure_future(here.ask(connect_to("far.example:443")))
        await asked.wait()
        await here.register.allow(Scope("acme"), ["other.example"])
        assert "allowlist of acme" in await here.ask(connect_to("third.example:443"))
        answer.set()
        assert "far.example is not on the allowlist of acme" in await asking


async def test_a_broken_list_keeps_the_one_before_and_says_so() -> None:
    async with server(echo) as far, gate() as here, asyncio.timeout(LIMIT_S):
        here.ports[443] = far
        await here.register.allow(Scope("acme"), ["far.example"])
        await here.bus.append("egress.rules.acme", b'{"allow": ["not a pattern"]}')
        await here.until(lambda: any(reason.part == "rules" for reason in here.health.report().reasons))
        assert "200" in await _status(here)
        assert "allowlist of acme" in await here.ask(connect_to("other.example:443"))
        assert "not a pattern" in str((await here.register.rules())[Scope("acme")])
        await here.register.allow(Scope("acme"), [])
        await here.until(lambda: all(reason.part != "rules" for reason in here.health.report().reasons))
        assert "allowlist of acme" in await here.ask(connect_to("far.example:443"))


async def test_a_broken_list_without_one_before_it_allows_nothing() -> None:
    bus = MemoryBus()
    await bus.ensure([documents()])
    await bus.append("egress.rules.acme", b"[]")
    async with gate(bus=bus) as here:
        assert "allowlist of acme" in await here.ask(connect_to("far.example:443"))
    await bus.close()


async def test_a_session_that_ends_loses_its_tunnels_and_its_address() -> None:
    async with server(echo) as far, gate() as here, asyncio.timeout(LIMIT_S):
        here.ports[443] = far
        reader, writer = await here.tunnel()
        await here.register.withdraw(ip_address(ONE), Place("acme", "s1", "1-1"))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
        # Whoever is given the address next is told apart, also when that is said a moment after it has connected.
        asking = asyncio.ensure_future(here.ask(connect_to("10.1.1.1:443")))
        await here.register.place(ip_address(ONE), Place("acme", "s9", "1-1"))
        assert (await asking).startswith("HTTP/1.1 403 ")
        assert [each.host for each in await here.told(1, "s9")] == ["10.1.1.1"]


async def test_it_goes_on_without_nats_and_tells_afterwards() -> None:
    bus = MemoryBus()
    async with server(echo) as far, gate(bus=bus) as here:
        here.ports[443] = far
        bus.go_away()
        _, writer = await here.tunnel()
        for _ in range(3):
            await here.ask(connect_to("10.0.0.1:443"))
        writer.close()
        bus.come_back()
        await here.told(1)
    assert sum(each.count for each in await here.denials()) == 3
    await bus.close()


async def test_what_cannot_be_listened_on_is_one_line() -> None:
    bus = MemoryBus()
    health = Health("egress", version="1", pid=1, monotonic=time.monotonic)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        settings = Settings(listen=f"127.0.0.1:{held.getsockname()[1]}")
        egress = service.Egress(bus, settings, partitions=1, health=health, metrics=Metrics())
        with pytest.raises(Misconfigured, match="taken by another program"):
            await egress.run()
    await bus.close()


async def test_what_it_measures_is_what_it_declares() -> None:
    async with gate() as here:
        assert {family.name for family in here.metrics.families} == {family.name for family in EGRESS}


def test_what_an_operator_sets_wrongly_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Misconfigured, match="also_refused"):
        Settings(also_refused=("10.0.0.1/8",)).refused_networks  # noqa: B018
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, 64))
    with pytest.raises(Misconfigured, match="max_connections needs 2176 open files"):
        make_room(2176, "[egress] max_connections")


async def found(places: dict[Address, Place]) -> dict[Address, Place]:
    return places


async def test_places_are_made_to_agree_with_what_there_is() -> None:
    bus = MemoryBus()
    await bus.ensure([documents()])
    register = Register(bus)
    one, two = Place("acme", "s1", "1-1"), Place("acme", "s2", "1-1")
    await register.place(HERE, one)
    await register.withdraw(HERE, two)
    assert await register.settle(lambda: found({HERE: one})) == 0, "what is another's stays"
    other = ip_address("10.204.0.6")
    assert await register.settle(lambda: found({other: two})) == 2
    assert await register.settle(lambda: found({other: two})) == 0
    assert (await _table(bus)).places == {other: two}
    await register.withdraw(other, two)
    assert (await _table(bus)).places == {}
    await bus.close()


async def _table(bus: MemoryBus) -> Table:
    table = Table()
    async for item in bus.follow("EGRESS", ["egress.>"], live=False):
        for stored in item if isinstance(item, list) else []:
            table.apply(stored)
    return table


async def test_a_place_that_cannot_be_read_is_nobodys() -> None:
    bus = MemoryBus()
    await bus.ensure([documents()])
    await Register(bus).place(HERE, Place("acme", "s1", "1-1"))
    table = await _table(bus)
    await bus.append("egress.place.10-204-0-5", json.dumps({"place": ["acme"]}).encode())
    stored = await bus.last("EGRESS", "egress.place.10-204-0-5")
    assert stored is not None
    with pytest.raises(Malformed):
        table.apply(stored)
    assert table.places == {}
    with pytest.raises(Malformed):
        await Register(bus).allow(Scope("acme"), ["a b"])
    with pytest.raises(Malformed):
        await Register(bus).allow(Scope("ac.me"), [])
    assert NOBODY not in table.places
    await bus.close()
