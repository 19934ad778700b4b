"""A broker whose vault is slow or away, that dies, that is one of two, or that is asked in a loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from sandreel_bridge.broker.pace import LEASES_BURST
from sandreel_bridge.broker.vault import Name, Opened, Reader, Vault
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.clock import new_id, now
from sandreel_core.contract import credential as c
from sandreel_core.contract import turn as t
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.session import CommandRefused
from sandreel_core.errors import Refused, Unavailable
from tests.support import samples
from tests.support.broker import VALUE, FakeIssuer, Session, broker_on, grant, revoke, said, types
from tests.support.spawner import ONE

pytestmark = pytest.mark.timeout(60)


class Slow:
    """A vault that gives a value only when it may `go`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vault, name)

    async def read(self, name: Name, reader: Reader) -> Opened:
        opened = await self._vault.read(name, reader)
        self.asked.set()
        await self.go.wait()
        return opened


async def test_a_turn_that_ends_while_its_lease_is_prepared_gets_none(session: Session, vault: Vault) -> None:
    """Nobody has noticed the end yet: it stands on another subject, and is looked for now and then."""
    slow, issuer = Slow(vault), FakeIssuer()
    finished = next(each for each in samples.EVENTS if isinstance(each, t.TurnFinished))
    async with broker_on(session.bus, slow, issuer, look_s=60):
        await grant(session, "app", turn="t1")
        asking = asyncio.ensure_future(session.ask("app", exec="t1-1"))
        await slow.asked.wait()
        await session.say(finished, id="t1")
        slow.go.set()
        with pytest.raises(Refused, match="EXPIRED"):
            await asking
        async with asyncio.timeout(10):
            while issuer.ended != issuer.made:
                await asyncio.sleep(0.01)
    assert issuer.made != []
    assert "leased" not in await types(session)


async def test_a_revocation_and_a_lease_exclude_each_other(session: Session, vault: Vault) -> None:
    """Whichever stands first in the log: a lease behind the revocation is one that nobody got."""
    slow, issuer = Slow(vault), FakeIssuer()
    async with broker_on(session.bus, slow, issuer):
        for slug in ("github", "app"):
            await grant(session, slug)
            asking = asyncio.ensure_future(session.ask(slug))
            await slow.asked.wait()
            await revoke(session, slug)
            slow.go.set()
            with pytest.raises(Refused, match="NOT_GRANTED"):
                await asking
            slow.asked.clear()
            slow.go.clear()
        async with asyncio.timeout(10):
            while issuer.ended != issuer.made:
                await asyncio.sleep(0.01)
    assert "leased" not in await types(session)
    assert issuer.made != []


async def test_two_brokers_are_one(session: Session, vault: Vault) -> None:
    buses = [MemoryBus(session.bus.server) for _ in range(2)]  # type: ignore[attr-defined]
    async with broker_on(buses[0], vault), broker_on(buses[1], vault):
        await grant(session)
        leases = await asyncio.gather(*(session.ask() for _ in range(20)))
        assert len({lease.lease_id for lease in leases}) == 20
        await session.stop()
        revoked = await said(session, c.Revoked)
        assert set(revoked.lease_ids) == {lease.lease_id for lease in leases}
        await session.resume(2)
        await grant(session)
        assert (await types(session)).count("revoked") == 1
        assert (await types(session)).count("granted") == 2


async def test_what_a_broker_that_died_has_left_the_next_one_does(session: Session, vault: Vault) -> None:
    async with broker_on(session.bus, vault):
        await grant(session)
        lease = await session.ask()
    await session.stop()
    assert (await types(session))[-1] == "leased"
    async with broker_on(session.bus, vault):
        assert (await said(session, c.Revoked)).lease_ids == [lease.lease_id]


async def test_a_vault_that_is_away_gives_no_lease_and_loses_no_grant(session: Session, vault: Vault) -> None:
    class Away:
        @asynccontextmanager
        async def connection(self) -> AsyncGenerator[None, None]:
            raise Unavailable("Postgres: it is away")
            yield

        def __getattr__(self, name: str) -> Any:
            async def fail(*_: Any, **__: Any) -> Any:
                raise Unavailable("Postgres: it is away")

            return fail

    async with broker_on(session.bus, Away()):
        await grant(session)
        with pytest.raises(Unavailable):
            await session.ask()
    async with broker_on(session.bus, vault):
        assert session.open(await session.ask()) == VALUE


async def test_a_vault_that_is_slow_gives_no_lease_in_time_and_holds_up_nobody(
    session: Session, vault: Vault, empty_database: str
) -> None:
    """A real one, whose table somebody has locked."""
    locking = await asyncpg.connect(empty_database)
    async with broker_on(session.bus, vault, give_s=0.3):
        await grant(session)
        async with locking.transaction():
            await locking.execute("LOCK TABLE vault.credentials IN ACCESS EXCLUSIVE MODE")
            asking = [asyncio.ensure_future(session.ask(exec=f"e{n}")) for n in range(20)]
            # Whoever asks for what is not granted needs no vault, and neither does a command.
            with pytest.raises(Refused, match="NOT_GRANTED"):
                await session.ask("nothing")
            assert (await revoke(session)).slug == "github"
            for answer in await asyncio.gather(*asking, return_exceptions=True):
                assert isinstance(answer, Unavailable)
                assert "took too long" in str(answer)
        await grant(session)
        assert session.open(await session.ask()) == VALUE
    await locking.close()
    assert (await types(session)).count("leased") == 1


async def test_asking_in_a_loop_costs_neither_the_log_nor_the_vault_more_than_its_pace(
    session: Session, vault: Vault
) -> None:
    async with broker_on(session.bus, vault):
        answers = await asyncio.gather(
            *(session.ask(f"x{n}") for n in range(int(LEASES_BURST) + 30)), return_exceptions=True
        )
        codes = [error.code for error in answers if isinstance(error, Refused)]
        assert codes.count("NOT_GRANTED") in range(int(LEASES_BURST), int(LEASES_BURST) + 10)
        assert codes.count("TOO_OFTEN") > 10
    assert (await types(session)).count("refused") < 40


async def test_a_command_that_was_refused_for_want_of_a_broker_stays_refused(session: Session, vault: Vault) -> None:
    id = await session.send(c.Grant(slug="github"))
    refused = CommandRefused(command_id=id, code="ROLE_NOT_INSTALLED", message="there is no broker")
    subject = session.subjects(ONE).event("session")
    body = encode(seal(refused, id=new_id(), source="/spawner", subject=subject, time=now(), causationid=id))
    await session.bus.append(subject, body)
    async with broker_on(session.bus, vault):
        await grant(session, "app")
        with pytest.raises(Refused, match="NOT_GRANTED"):
            await session.ask()
    assert (await types(session)).count("granted") == 1
