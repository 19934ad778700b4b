"""Law 8: no proven fence, no session, unless the operator said so in so many words. Knows no engine and no firewall."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from sandreel_core.errors import Misconfigured, Refused, SandreelError, Unavailable
from sandreel_core.log import Log
from sandreel_core.spawner.fence import OrgNetwork
from sandreel_core.spawner.fence_proof import FenceProof

# Another program may empty the firewall's chains (a reload of firewalld), and nobody is told: so a proof does not last.
PROOF_LASTS_S = 600.0
# How often it is looked whether a door has moved (a service that was started again may have another address) and
# whether a proof is to be renewed: one listing and one inspection a service.
LOOK_S = 5.0
# Of a proof's life, after which it is renewed while sessions may still start by it.
RENEWED_AFTER = 0.7
# Rules that could not be made are tried again in the background so seldom; every create tries anew.
FAILED_S = 60.0
# The one-shot that takes rules away takes a second; a stop does not wait longer for an engine that is ill.
CLOSE_WITHIN_S = 10.0
# A proof is five containers for some seconds: no more at once, however many orgs begin.
MAX_PROOFS = 4
# What a refusal names of the holes; the log has all.
MAX_TOLD = 3

NOT_PROVEN = "FENCE_NOT_PROVEN"

T = TypeVar("T")
Survey = Callable[[], Awaitable[Sequence[OrgNetwork]]]
Raise = Callable[[Sequence[OrgNetwork]], Awaitable[None]]
Prove = Callable[[OrgNetwork], Awaitable[FenceProof]]


class Fencing:
    """The fences of one installation on one host.

    survey    all its networks with their doors, as they are now
    raise_    makes the rules of all networks, and takes them down for none (`fence_docker.raise_fence`)
    prove     one network (`fence_docker.prove`)
    """

    def __init__(
        self,
        survey: Survey,
        raise_: Raise,
        prove: Prove,
        *,
        lasts_s: float = PROOF_LASTS_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._survey = survey
        self._raise = raise_
        self._prove = prove
        self._lasts_s = lasts_s
        self._monotonic = monotonic
        # What was proven and when. With its doors and its range: a network that has changed is another one.
        self._proven: dict[OrgNetwork, float] = {}
        self._raised: frozenset[OrgNetwork] = frozenset()
        self._raising = asyncio.Lock()
        self._room = asyncio.Semaphore(MAX_PROOFS)
        self._proving: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._looking = asyncio.Event()
        self._log = Log("fence")

    def look(self) -> None:
        """Somebody knows that a door may have moved: `keep` need not wait."""
        self._looking.set()

    async def admit(self, name: str) -> None:
        """Returns when a session may start in this network.

        Raises Refused (FENCE_NOT_PROVEN) with the first holes; Unavailable when the engine cannot be asked, or the
        network is not there. Concurrent callers share one proof.
        """
        for network in await self._up_to_date():
            if network.name == name:
                await self._proof(network, self._lasts_s)
                return
        raise Unavailable(f"network {name} is not there (any more)", retry_after_s=1)

    async def keep(self) -> None:
        """Rules follow the networks and proofs are renewed, for ever: so that creates need not wait for either.

        What is there at the start is proven as well. What cannot be proven is left to the next create.
        """
        first = True
        while True:
            self._looking.clear()
            pause_s = LOOK_S
            try:
                for network in await self._up_to_date():
                    if self._looking.is_set():
                        break  # a door may have moved: what follows it comes before proofs, each of which takes seconds
                    if first or network in self._proven:
                        await self._renew(network)
                else:
                    first = False
            except Refused:
                pause_s = FAILED_S  # it is in the log, and the next session is told
            except SandreelError as error:
                self._log.warning("the fences cannot be looked after", problem=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._looking.wait()

    async def close(self) -> None:
        """Nobody admits any more: behind the last network no rule is left, which every packet of the host would pass.

        Sessions that stay in a network keep its rules. What cannot be taken down now is in the log.
        """
        if not self._raised:
            return
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._up_to_date()
        except (SandreelError, TimeoutError) as error:
            self._log.warning("the fence's rules may stay", problem=str(error) or "the engine takes too long")

    async def _renew(self, network: OrgNetwork) -> None:
        try:
            await self._proof(network, self._lasts_s * RENEWED_AFTER)
        except SandreelError as error:
            self._log.warning("a proof was not renewed", network=network.name, problem=str(error))

    async def _up_to_date(self) -> Sequence[OrgNetwork]:
        """All networks, each with its rules. One at a time, the looking included: rules that were made from an older
        look would leave a network out that is there."""
        async with self._raising:
            networks = await self._survey()
            for gone in self._proving.keys() - {network.name for network in networks}:
                if not self._proving[gone].locked():
                    del self._proving[gone]
            if not self._raised.issuperset(networks) or (self._raised and not networks):
                await self._told(self._raise(networks))
                self._raised = frozenset(networks)
                self._proven = {known: at for known, at in self._proven.items() if known in self._raised}
            return networks

    async def _proof(self, network: OrgNetwork, lasts_s: float) -> None:
        """Take one, unless there is one that is younger."""
        async with self._proving[network.name]:
            proven_at = self._proven.get(network)
            if proven_at is not None and self._monotonic() - proven_at < lasts_s:
                return
            proof = await self._try(network)
            if not proof.proven:
                # Somebody has taken our rules away, for ever or for the moment in which a firewall is loaded again.
                self._log.warning(
                    "a fence does not hold and is raised again", network=network.name, holes=list(proof.holes)
                )
                self._raised = frozenset()
                if network not in await self._up_to_date():
                    raise Unavailable(f"network {network.name} has changed meanwhile", retry_after_s=1)
                proof = await self._try(network)
            self._proven.pop(network, None)
            if not proof.proven:
                self._raised = frozenset()
                self._log.error("the fence is not proven", network=network.name, holes=list(proof.holes))
                raise _refused("; ".join(proof.holes[:MAX_TOLD]), len(proof.holes) - MAX_TOLD)
            self._log.info("the fence is proven", network=network.name, tried=proof.tried, took_s=proof.took_s)
            self._proven[network] = self._monotonic()

    async def _try(self, network: OrgNetwork) -> FenceProof:
        async with self._room:
            return await self._told(self._prove(network))

    async def _told(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except Misconfigured as error:
            self._log.error("there is no fence", problem=str(error))
            raise _refused(str(error), 0) from error


def _refused(why: str, more: int) -> SandreelError:
    rest = f" (and {more} more: see the spawner's log)" if more > 0 else ""
    return Refused(NOT_PROVEN, f"{why}{rest}; --unfenced starts sessions without a fence")
