"""Quotas: how many may run, counted with those that are on their way."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from sandreel_core.bus.installed import SLOTS
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.contract.message import Owner
from sandreel_core.errors import Refused
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.quota import Claim, Quota, Quotas, claims, slots

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def claim(session: str, *, org: str = "acme", owner: str = "", node: str = "here", incarnation: int = 1) -> Claim:
    return Claim(
        key=Key(org, session), incarnation=incarnation, owner=Owner(type="user", id=owner or session), node=node
    )


async def quota(**limits: int) -> Quota:
    return Quota(await new_bus(), Quotas(**limits))


async def new_bus() -> MemoryBus:
    bus = MemoryBus()
    await bus.ensure([slots()])
    return bus


async def holders(subject: Quota, scope: str) -> list[str]:
    """Whose slots a document has."""
    document, _ = await subject._read(scope)
    return [slot.holder for slot in document.slots]


async def refusal(subject: Quota, asked: Claim) -> str:
    with pytest.raises(Refused) as caught:
        await subject.take(asked, NOW)
    assert caught.value.code == "QUOTA_EXCEEDED"
    return caught.value.message


async def test_each_limit_is_named() -> None:
    subject = await quota(per_owner=1, per_org=2, per_host=3)
    await subject.take(claim("a", owner="ann"), NOW)
    assert "1 active session per owner" in await refusal(subject, claim("b", owner="ann"))
    await subject.take(claim("b"), NOW)
    assert "2 active sessions per org" in await refusal(subject, claim("c"))
    await subject.take(claim("c", org="other"), NOW)
    assert "3 active sessions per host" in await refusal(subject, claim("d", org="third"))


async def test_a_refused_claim_holds_nothing() -> None:
    subject = await quota(per_owner=1)
    await subject.take(claim("a", owner="ann"), NOW)
    await refusal(subject, claim("b", owner="ann"))
    assert await holders(subject, "slot.org.acme") == ["acme/a/1"]
    assert await holders(subject, "slot.host.here") == ["acme/a/1"]


async def test_taking_and_releasing_again_changes_nothing() -> None:
    subject = await quota()
    for _ in range(2):
        await subject.take(claim("a"), NOW)
    assert await holders(subject, "slot.org.acme") == ["acme/a/1"]
    for _ in range(2):
        await subject.release(claim("a"))
    assert await holders(subject, "slot.org.acme") == []


async def test_of_many_at_once_only_as_many_as_fit_get_a_slot() -> None:
    subject = await quota(per_org=5, per_host=100)
    taken = await asyncio.gather(*(subject.take(claim(f"s{i}"), NOW) for i in range(12)), return_exceptions=True)
    assert sum(result is None for result in taken) == 5
    assert all(result is None or isinstance(result, Refused) for result in taken)
    assert len(await holders(subject, "slot.org.acme")) == 5


async def test_the_slots_are_made_to_agree_with_the_log() -> None:
    subject = await quota()
    await subject.take(claim("gone"), NOW)
    await subject.take(claim("young"), NOW + timedelta(seconds=100))
    later = NOW + timedelta(seconds=120)
    active = claims([claim("here"), claim("there", node="there")])
    assert await subject.settle(active, later) > 0
    assert sorted(await holders(subject, "slot.org.acme")) == ["acme/here/1", "acme/there/1", "acme/young/1"]
    assert await holders(subject, "slot.host.there") == ["acme/there/1"]
    assert await subject.settle(active, later) == 0


async def test_a_loser_with_another_owner_does_not_keep_that_owners_slot() -> None:
    subject = await quota()
    await subject.take(claim("a", owner="ann"), NOW)
    await subject.take(claim("a", owner="bob"), NOW)
    await subject.settle(claims([claim("a", owner="ann")]), NOW + timedelta(seconds=120))
    await subject.take(claim("b", owner="bob"), NOW)


async def test_a_slot_that_was_given_back_while_the_log_was_read_stays_free() -> None:
    subject = await quota(per_owner=1)
    await subject.settle({}, NOW)
    await subject.take(claim("a", owner="ann"), NOW)
    later = NOW + timedelta(seconds=120)
    active = claims([claim("a", owner="ann")])
    # The session is stopped: its slot is free before the log, which the sweep has just read, says so.
    await subject.release(claim("a", owner="ann"))
    await subject.settle(active, later)
    await subject.take(claim("b", owner="ann"), later)
    assert await holders(subject, "slot.org.acme") == ["acme/b/1"]


async def test_a_lost_slot_comes_back_and_goes_with_its_session() -> None:
    subject = await quota(per_owner=1)
    await subject.settle({}, NOW)
    active = claims([claim("a", owner="ann")])
    for _ in range(2):
        await subject.settle(active, NOW)
    assert await holders(subject, "slot.org.acme") == ["acme/a/1"]
    await subject.settle({}, NOW + timedelta(seconds=1))
    assert await holders(subject, "slot.org.acme") == []


async def test_of_owners_that_have_nothing_no_document_is_left() -> None:
    bus = await new_bus()
    subject = Quota(bus, Quotas())
    for owner in ("ann", "bob"):
        await subject.take(claim("a", owner=owner), NOW)
        await subject.release(claim("a", owner=owner))
    assert await bus.subjects(SLOTS, "slot.>") == {}
    await subject.take(claim("a", owner="ann"), NOW)
    # What an earlier version left, and a slot of which the log knows nothing.
    await bus.append("slot.owner.acme.old", b"{}")
    await bus.append("slot.owner.acme.unreadable", b"[")
    await subject.settle({}, NOW + timedelta(seconds=120))
    assert await bus.subjects(SLOTS, "slot.>") == {}
    await subject.take(claim("a", owner="ann"), NOW)
    assert await holders(subject, "slot.org.acme") == ["acme/a/1"]


async def test_who_takes_the_slot_that_another_one_is_giving_back_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = await new_bus()
    subject, other = Quota(bus, Quotas()), Quota(bus, Quotas())
    await subject.take(claim("a"), NOW)
    purge = bus.purge

    async def overtaken(stream: str, name: str, *, keep: int = 0, up_to: int | None = None) -> int:
        monkeypatch.setattr(bus, "purge", purge)
        await other.take(claim("b"), NOW)
        return await purge(stream, name, keep=keep, up_to=up_to)

    monkeypatch.setattr(bus, "purge", overtaken)
    await subject.release(claim("a"))
    for scope in ("slot.org.acme", "slot.host.here"):
        assert await holders(subject, scope) == ["acme/b/1"]


async def test_the_slots_are_read_together_and_not_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = await new_bus()
    subject = Quota(bus, Quotas())
    await subject.take(claim("gone"), NOW)

    async def last(stream: str, subject: str) -> None:
        raise AssertionError("one by one, 48,000 owners take longer than a start may")

    with monkeypatch.context() as patched:
        patched.setattr(bus, "last", last)
        assert await subject.settle(claims([claim("here")]), NOW + timedelta(seconds=120)) == 4
    assert await holders(subject, "slot.org.acme") == ["acme/here/1"]
