"""Law 8: no proven fence, no session, unless the operator said so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Network

import pytest

from sandreel_core.errors import Misconfigured, Refused, Unavailable
from sandreel_core.spawner.fence import OrgNetwork
from sandreel_core.spawner.fence_proof import FenceProof
from sandreel_core.spawner.fencing import Fencing

ONE = OrgNetwork("sr-one", "sr-one", IPv4Network("10.204.0.0/26"))
TWO = OrgNetwork("sr-two", "sr-two", IPv4Network("10.204.0.64/26"))


class Firewall:
    """Fences that hold when they were raised; `reload` is another program that empties them."""

    def __init__(self) -> None:
        self.fenced: frozenset[OrgNetwork] = frozenset()
        self.raised, self.proofs, self.now = 0, 0, 0.0
        self.works = True
        self.problem: Exception | None = None

    async def up(self, networks: Sequence[OrgNetwork]) -> None:
        await asyncio.sleep(0)
        if self.problem is not None:
            raise self.problem
        self.raised += 1
        self.fenced = frozenset(networks) if self.works else frozenset()

    async def prove(self, network: OrgNetwork) -> FenceProof:
        await asyncio.sleep(0)
        self.proofs += 1
        proven = network in self.fenced
        holes = () if proven else tuple(f"hole {number}" for number in range(1, 6))
        return FenceProof(network=network.name, proven=proven, holes=holes, tried=5, took_s=0.1)

    def reload(self) -> None:
        self.fenced = frozenset()

    def fencing(self, *, unfenced: bool = False) -> Fencing:
        return Fencing(self.up, self.prove, unfenced=unfenced, lasts_s=100, monotonic=lambda: self.now)


async def test_sessions_that_start_at_once_share_one_proof() -> None:
    wall = Firewall()
    fencing = wall.fencing()
    assert set(await asyncio.gather(*(fencing.admit(ONE, [ONE]) for _ in range(10)))) == {"proven"}
    assert (wall.raised, wall.proofs) == (1, 1)
    assert await fencing.admit(TWO, [ONE, TWO]) == "proven"
    assert (wall.raised, wall.proofs) == (2, 2), "a new network: all rules again, and its own proof"


async def test_without_a_proof_no_session_and_the_holes_are_named() -> None:
    wall = Firewall()
    wall.works = False
    fencing = wall.fencing()
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            await fencing.admit(ONE, [ONE])
        assert caught.value.code == "FENCE_NOT_PROVEN"
        assert "hole 1; hole 2; hole 3 (and 2 more" in caught.value.message
        assert "--unfenced" in caught.value.message
    wall.works = True
    await wall.up([ONE])
    assert await fencing.admit(ONE, [ONE]) == "proven"


async def test_a_proof_does_not_last_and_a_fence_that_somebody_emptied_is_raised_again() -> None:
    wall = Firewall()
    fencing = wall.fencing()
    await fencing.admit(ONE, [ONE])
    wall.reload()
    wall.now = 99.0
    assert (await fencing.admit(ONE, [ONE]), wall.proofs) == ("proven", 1)
    wall.now = 101.0
    assert await fencing.admit(ONE, [ONE]) == "proven"
    assert ONE in wall.fenced
    assert (wall.raised, wall.proofs) == (2, 3)


async def test_an_operator_who_says_so_gets_sessions_without_a_fence() -> None:
    wall = Firewall()
    assert await wall.fencing(unfenced=True).admit(ONE, [ONE]) == "unfenced"
    assert (wall.raised, wall.proofs) == (0, 0)


async def test_what_cannot_be_done_refuses_and_what_cannot_be_asked_is_tried_again() -> None:
    wall = Firewall()
    wall.problem = Misconfigured("no chain DOCKER-USER")
    with pytest.raises(Refused, match="no chain DOCKER-USER"):
        await wall.fencing().admit(ONE, [ONE])
    wall.problem = Unavailable("the engine cannot be asked")
    with pytest.raises(Unavailable):
        await wall.fencing().admit(ONE, [ONE])
