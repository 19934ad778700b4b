"""Who a runnerd is, on a real server: it begins as one who may ask, becomes itself, and ends when it is told so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.contract.boot import BootSettings
from sandreel_core.contract.bootstrap import Renew, Renewed
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Denied, Malformed, Over, Unavailable
from sandreel_core.log import Log
from sandreel_core.spawner.bootstrap import feed_of
from sandreel_core.spawner.issuer import Issuer
from sandreel_runnerd.passport import Passport
from tests.support.town import KEY, LIMIT_S, ONE, Town

SUBJECTS = SessionSubjects(*ONE)
OWN = SUBJECTS.exec("e1")


class Desk:
    """Answers `renew` as the spawner does, once it has been told how."""

    def __init__(self, town: Town, lasts_s: float) -> None:
        self.issuer = Issuer(town.issuer.account, town.issuer.key, lasts_s)
        self.over = False
        self.asked: list[Renew] = []

    def sign(self, public_keys: dict[str, str]) -> str:
        return self.issuer.session(SUBJECTS, feed_of(KEY, ONE, "1-1"), public_keys)

    async def serve(self, subject: str, body: bytes) -> bytes:
        ask = msgspec.json.decode(body, type=Renew)
        self.asked.append(ask)
        if self.over:
            raise Over("boot 1-1 is over")
        return msgspec.json.encode(Renewed(user_jwt=self.sign(ask.public_keys)))


@asynccontextmanager
async def begun(town: Town) -> AsyncIterator[tuple[Passport, JetStreamBus]]:
    """A passport with its connection, as `__main__` makes them."""
    settings = BootSettings(
        nats_urls=[town.server.url], org="acme", session="s1", boot_id="1-1", token="hush", installation="i"
    )
    passport = Passport(settings, town.issuer.bootstrap(SUBJECTS), Log("t"))
    bus = await JetStreamBus.connect([town.server.url], name="t", identity=passport, connect_timeout_s=LIMIT_S)
    passport.attach(bus)
    try:
        yield passport, bus
    finally:
        await bus.close()


async def test_it_becomes_what_its_jwt_says(town: Town) -> None:
    desk = Desk(town, 3600)
    async with begun(town) as (passport, bus):
        with pytest.raises(Denied):
            await bus.append(OWN, b"{}", expected=0)
        await passport.take(desk.sign(passport.public_keys))
        assert await bus.append(OWN, b"{}", expected=0)
        assert bus.generation == 2


async def test_it_is_renewed_until_it_is_told_that_it_is_over(town: Town) -> None:
    desk, told = Desk(town, 5), asyncio.Event()
    spawner = await town.bus("spawner")
    async with spawner.serve("req.spawner.*.*.renew", desk.serve), begun(town) as (passport, bus):
        await passport.take(desk.sign(passport.public_keys))
        keeping = asyncio.ensure_future(passport.keep(lambda error: told.set()))
        async with asyncio.timeout(LIMIT_S):
            await bus.wait_connected(3)
            assert await bus.append(OWN, b"{}", expected=0)
            desk.over = True
            await told.wait()
            await keeping
    # Always with the keys that the token is bound to.
    assert {(ask.token, *ask.public_keys.values()) for ask in desk.asked} == {("hush", *passport.public_keys.values())}


async def test_one_that_ended_while_nobody_renewed_is_asked_for_again(town: Town) -> None:
    desk = Desk(town, 2)
    spawner = await town.bus("spawner")
    async with begun(town) as (passport, bus):
        await passport.take(desk.sign(passport.public_keys))
        keeping = asyncio.ensure_future(passport.keep(lambda error: None))
        async with asyncio.timeout(LIMIT_S):
            while bus.connected:  # the server ends it
                await asyncio.sleep(0.05)
            with pytest.raises(Unavailable):
                await bus.append(OWN, b"{}")
            async with spawner.serve("req.spawner.*.*.renew", desk.serve):
                await bus.wait_connected(2)
                assert await bus.append(OWN, b"{}", expected=0)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def test_one_that_ended_and_is_over_says_so_and_stays_away(town: Town) -> None:
    desk, told = Desk(town, 2), asyncio.Event()
    desk.over = True
    spawner = await town.bus("spawner")
    async with spawner.serve("req.spawner.*.*.renew", desk.serve), begun(town) as (passport, _):
        await passport.take(desk.sign(passport.public_keys))
        keeping = asyncio.ensure_future(passport.keep(lambda error: told.set()))
        async with asyncio.timeout(LIMIT_S):
            await told.wait()
            await keeping


def test_what_is_no_credential_is_refused() -> None:
    settings = BootSettings(nats_urls=["nats://x"], org="a", session="s", boot_id="1-1", token="hush", installation="i")
    with pytest.raises(Malformed):
        Passport(settings, "hush, no credentials", Log("t"))
