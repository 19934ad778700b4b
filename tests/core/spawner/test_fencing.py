"""Law 8: no proven fence, no session, unless the operator said so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from sandreel_core.errors import Misconfigured, Refused, Unavailable
from sandreel_core.spawner.fence import Door, OrgNetwork
from sandreel_core.spawner.fence_proof import FenceProof
from sandreel_core.spawner.fencing import Fencing

ONE = OrgNetwork("sr-one", "sr-one", IPv4Network("10.204.0.0/26"))
TWO = OrgNetwork("sr-two", "sr-two", IPv4Network("10.204.0.64/26"))


class Firewall:
    """Fences that hold when they were raised; `reload` is another program that empties them."""

    def __init__(self, *there: OrgNetwork) -> None:
        self.there = list(there)
        self.fenced: frozenset[OrgNetwork] = frozenset()
        self.raised, self.now = 0, 0.0
        self.proofs: list[str] = []
        self.works = True
        self.problem: Exception | None = None
        self.slow: asyncio.Event | None = None
        self.moment = False

    async def survey(self) -> Sequence[OrgNetwork]:
        found = tuple(self.there)
        await asyncio.sleep(0)
        return found

    async def up(self, networks: Sequence[OrgNetwork]) -> None:
        if self.slow is not None:
            await self.slow.wait()
        await asyncio.sleep(0)
        if self.problem is not None:
            raise self.problem
        self.raised += 1
        self.fenced = frozenset(networks) if self.works else frozenset()

    async def prove(self, network: OrgNetwork) -> FenceProof:
        await asyncio.sleep(0)
        self.proofs.append(network.name)
        proven = network in self.fenced and not self.moment
        self.moment = False
        holes = () if proven else tuple(f"hole {number}" for number in range(1, 6))
        return FenceProof(network=network.name, proven=proven, holes=holes, tried=5, took_s=0.1)

    def reload(self) -> None:
        self.fenced = frozenset()

    def fencing(self) -> Fencing:
        return Fencing(self.survey, self.up, self.prove, lasts_s=100, monotonic=lambda: self.now)


async def test_sessions_that_start_at_once_share_one_proof() -> None:
    wall = Firewall(ONE)
    fencing = wall.fencing()
    await asyncio.gather(*(fencing.admit(ONE.name) for _ in range(10)))
    assert (wall.raised, len(wall.proofs)) == (1, 1)
    wall.there.append(TWO)
    await fencing.admit(TWO.name)
    assert (wall.raised, wall.proofs) == (2, [ONE.name, TWO.name]), "a new network: all rules again, and its own proof"
    wall.there.remove(ONE)
    await fencing.admit(TWO.name)
    assert wall.raised == 2, "rules of a network that is gone are in nobody's way"
    wall.there.clear()
    with pytest.raises(Unavailable):
        await fencing.admit(TWO.name)
    assert wall.fenced == frozenset(), "but nothing is left behind the last one"


async def test_at_its_end_no_rule_is_left_behind_the_last_network() -> None:
    wall = Firewall(ONE)
    fencing = wall.fencing()
    await fencing.close()
    assert wall.raised == 0, "nothing was raised"
    await fencing.admit(ONE.name)
    await fencing.close()
    assert wall.fenced == {ONE}, "a session may be in it"
    wall.there.clear()
    wall.problem = Unavailable("the engine does not answer")
    await fencing.close()
    wall.problem = None
    await fencing.close()
    assert wall.fenced == frozenset()


async def test_two_first_sessions_at_once_leave_neither_network_without_rules() -> None:
    """The rules of both are made from a look at both, however long the first takes."""
    wall = Firewall(ONE)
    wall.slow = asyncio.Event()
    fencing = wall.fencing()
    first = asyncio.ensure_future(fencing.admit(ONE.name))
    await asyncio.sleep(0)
    wall.there.append(TWO)
    second = asyncio.ensure_future(fencing.admit(TWO.name))
    wall.slow.set()
    await asyncio.gather(first, second)
    assert wall.fenced == {ONE, TWO}


async def test_a_door_that_has_moved_is_a_new_fence() -> None:
    wall = Firewall(ONE)
    fencing = wall.fencing()
    await fencing.admit(ONE.name)
    moved = replace(ONE, doors=(Door("nats", IPv4Address("10.204.0.9"), 4222),))
    wall.there = [moved]
    await fencing.admit(ONE.name)
    assert wall.fenced == {moved}
    assert wall.proofs == [ONE.name, ONE.name]


async def test_a_door_that_moves_while_it_is_proven_is_tried_again_and_refuses_nobody() -> None:
    wall = Firewall(ONE)
    moved = replace(ONE, doors=(Door("nats", IPv4Address("10.204.0.9"), 4222),))

    async def prove(network: OrgNetwork) -> FenceProof:
        wall.there, wall.moment = [moved], network != moved
        return await wall.prove(network)

    fencing = Fencing(wall.survey, wall.up, prove)
    with pytest.raises(Unavailable, match="has changed"):
        await fencing.admit(ONE.name)
    await fencing.admit(ONE.name)
    assert wall.fenced == {moved}


async def test_rules_follow_a_door_before_proofs_that_are_due() -> None:
    """Each takes seconds, and there may be hundreds: sessions would not find the bus meanwhile."""
    wall, told = Firewall(ONE, TWO), list[tuple[str, int]]()
    moved = replace(TWO, doors=(Door("nats", IPv4Address("10.204.0.70"), 4222),))

    async def prove(network: OrgNetwork) -> FenceProof:
        told.append((network.name, wall.raised))
        if wall.there[1] == TWO:
            wall.there[1] = moved
            fencing.look()
        return await wall.prove(network)

    fencing = Fencing(wall.survey, wall.up, prove)
    keeping = asyncio.ensure_future(fencing.keep())
    for _ in range(50):
        await asyncio.sleep(0)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert told == [(ONE.name, 1), (TWO.name, 2)]


async def test_a_hole_of_a_moment_is_no_hole() -> None:
    """As of a firewall that is loaded again just then."""
    wall = Firewall(ONE)
    wall.moment = True
    await wall.fencing().admit(ONE.name)
    assert (wall.raised, len(wall.proofs)) == (2, 2)


async def test_without_a_proof_no_session_and_the_holes_are_named() -> None:
    wall = Firewall(ONE)
    wall.works = False
    fencing = wall.fencing()
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            await fencing.admit(ONE.name)
        assert caught.value.code == "FENCE_NOT_PROVEN"
        assert "hole 1; hole 2; hole 3 (and 2 more" in caught.value.message
        assert "--unfenced" in caught.value.message
    wall.works = True
    await fencing.admit(ONE.name)
    assert ONE in wall.fenced


async def test_a_proof_does_not_last_and_a_fence_that_somebody_emptied_is_raised_again() -> None:
    wall = Firewall(ONE)
    fencing = wall.fencing()
    await fencing.admit(ONE.name)
    wall.reload()
    wall.now = 99.0
    await fencing.admit(ONE.name)
    assert len(wall.proofs) == 1
    wall.now = 101.0
    await fencing.admit(ONE.name)
    assert ONE in wall.fenced
    assert (wall.raised, len(wall.proofs)) == (2, 3)


async def test_proofs_are_renewed_before_they_lapse_and_one_that_fails_is_not_tried_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sandreel_core.spawner.fencing.LOOK_S", 0)
    wall = Firewall(ONE, TWO)
    fencing = wall.fencing()
    keeping = asyncio.ensure_future(fencing.keep())

    async def looked() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    await looked()
    assert wall.proofs == [ONE.name, TWO.name]
    wall.now = 71.0
    await looked()
    assert wall.proofs[2:] == [ONE.name, TWO.name]
    await fencing.admit(ONE.name)
    assert len(wall.proofs) == 4, "a session that comes later finds it"
    wall.works = False
    wall.reload()
    wall.now = 142.0
    await looked()
    tried = len(wall.proofs)
    await looked()
    assert len(wall.proofs) == tried
    with pytest.raises(Refused, match="FENCE_NOT_PROVEN"):
        await fencing.admit(TWO.name)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_what_cannot_be_done_refuses_and_what_cannot_be_asked_is_tried_again() -> None:
    wall = Firewall(ONE)
    wall.problem = Misconfigured("no chain DOCKER-USER")
    with pytest.raises(Refused, match="no chain DOCKER-USER"):
        await wall.fencing().admit(ONE.name)
    wall.problem = Unavailable("the engine cannot be asked")
    with pytest.raises(Unavailable):
        await wall.fencing().admit(ONE.name)
    wall.problem = None
    with pytest.raises(Unavailable, match="is not there"):
        await wall.fencing().admit("sr-none")
