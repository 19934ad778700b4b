"""Slots of the quotas, taken and given back."""

from __future__ import annotations

import asyncio

import pytest

from sandreel_core.bus.installed import SLOTS
from sandreel_core.contract import session as s
from sandreel_core.contract.message import Owner
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.quota import Quota, Quotas
from tests.support.backend import FakeBackend
from tests.support.spawner import ONE, TWO, Hand, plan, ready, running, up


async def test_quotas_name_the_limit_and_count_creates_in_flight(hand: Hand, backend: FakeBackend) -> None:
    backend.silent = True
    async with running(hand.bus, backend, plan(quotas=Quotas(per_owner=1, per_org=2, per_host=3))):
        ann = Owner(type="user", id="ann")
        await hand.until(s.Requested, cause=await hand.create(owner=ann))
        second = await hand.create(TWO, owner=ann)
        assert "1 active session per owner" in (await hand.until(s.CommandRefused, TWO, cause=second)).message
        await hand.until(s.Requested, TWO, cause=await hand.create(TWO))
        third = Key("acme", "three")
        refused = await hand.until(s.CommandRefused, third, cause=await hand.create(third))
        assert (refused.code, "2 active sessions per org" in refused.message) == ("QUOTA_EXCEEDED", True)


async def test_a_stopped_session_gives_its_slot_back(hand: Hand, backend: FakeBackend) -> None:
    async with running(hand.bus, backend, plan(quotas=Quotas(per_owner=1))):
        ann = Owner(type="user", id="ann")
        await ready(hand, owner=ann)
        await hand.send(s.Stop())
        await hand.until(s.Stopped)
        await ready(hand, TWO, owner=ann)
        resumed = await hand.send(s.Resume())
        assert await hand.refusal(resumed) == "QUOTA_EXCEEDED"


async def test_it_serves_before_the_slots_are_settled(
    hand: Hand, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def settle(*_: object) -> int:
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr(Quota, "settle", settle)
    async with running(hand.bus, backend, plan()):
        await ready(hand)


async def test_what_is_destroyed_keeps_no_environment_and_is_not_looked_at_every_second(
    hand: Hand, backend: FakeBackend
) -> None:
    async with running(hand.bus, backend, plan()) as spawner:
        await ready(hand, env={"A": "1"})
        await ready(hand, TWO)
        async with asyncio.timeout(10):
            while set(spawner._sessions.running()) != {ONE, TWO}:
                await spawner._sessions.changed()
        await hand.send(s.Destroy())
        assert await spawner._sessions.until(ONE, lambda session: session.phase == "destroyed", 10)
        assert set(spawner._sessions.running()) == {TWO}
        assert spawner._sessions.get(ONE).session.env == {}
        assert len(await hand.bus.subjects(SLOTS, "slot.owner.acme.*")) == 1


async def test_of_concurrent_creates_of_one_id_one_wins(hand: Hand, backend: FakeBackend, spawner: None) -> None:
    ids = [await hand.create() for _ in range(5)]
    await up(hand)
    async with asyncio.timeout(10):
        while len([event for event in await hand.events() if event.causationid in ids]) < 5:
            await asyncio.sleep(0.01)
    outcomes = [event.type for event in await hand.events() if event.causationid in ids]
    assert sorted(outcomes) == ["command.refused"] * 4 + ["session.requested"]
    assert backend.calls == ["create 1-1"]
