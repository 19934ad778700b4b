"""Law 8: no proven fence, no session, unless the operator said so in so many words. Knows no engine and no firewall."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

from sandreel_core.errors import Misconfigured, Refused, SandreelError
from sandreel_core.log import Log
from sandreel_core.spawner.fence import OrgNetwork
from sandreel_core.spawner.fence_proof import FenceProof

# Another program may empty the firewall's chains (a reload of firewalld), and nobody is told: so a proof does not last.
PROOF_LASTS_S = 600.0
# What a refusal names of the holes; the log has all.
MAX_TOLD = 3

T = TypeVar("T")
Raise = Callable[[Sequence[OrgNetwork]], Awaitable[None]]
Prove = Callable[[OrgNetwork], Awaitable[FenceProof]]


class Fencing:
    """The fences of one installation on one host.

    raise_    makes the rules of all networks (`fence_docker.raise_fence`)
    prove     one network (`fence_docker.prove`)
    unfenced  the operator takes sessions without a proof; then nothing is raised and nothing proven
    """

    def __init__(
        self,
        raise_: Raise,
        prove: Prove,
        *,
        unfenced: bool,
        lasts_s: float = PROOF_LASTS_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._raise = raise_
        self._prove = prove
        self._unfenced = unfenced
        self._lasts_s = lasts_s
        self._monotonic = monotonic
        # What was proven and when. With its doors and its range: a network that has changed is another one.
        self._proven: dict[OrgNetwork, float] = {}
        self._raised: frozenset[OrgNetwork] | None = None
        self._one = asyncio.Lock()
        self._log = Log("fence")

    async def admit(self, network: OrgNetwork, networks: Sequence[OrgNetwork]) -> Literal["proven", "unfenced"]:
        """Before a session starts in `network`, one of `networks`, all that there are on this host.

        Returns what `session.provisioned` is to say. Raises Refused (FENCE_NOT_PROVEN) with the first holes; Unavailable
        when the engine cannot be asked. Concurrent callers share one proof.
        """
        if self._unfenced:
            return "unfenced"
        async with self._one:
            if self._raised != frozenset(networks):
                await self._told(self._raise(networks))
                self._raised = frozenset(networks)
            proven_at = self._proven.get(network)
            if proven_at is not None and self._monotonic() - proven_at < self._lasts_s:
                return "proven"
            proof = await self._told(self._prove(network))
            if not proof.proven and proven_at is not None:
                # It was proven once, so somebody has taken our rules away.
                self._log.warning("a fence does not hold any more, and is raised again", network=network.name)
                await self._told(self._raise(networks))
                proof = await self._told(self._prove(network))
            self._proven = {known: at for known, at in self._proven.items() if known in networks and known != network}
            if not proof.proven:
                self._raised = None
                self._log.error("the fence is not proven", network=network.name, holes=list(proof.holes))
                raise self._refused("; ".join(proof.holes[:MAX_TOLD]), len(proof.holes) - MAX_TOLD)
            self._log.info("the fence is proven", network=network.name, tried=proof.tried, took_s=proof.took_s)
            self._proven[network] = self._monotonic()
            return "proven"

    async def _told(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except Misconfigured as error:
            raise self._refused(str(error), 0) from error

    def _refused(self, why: str, more: int) -> SandreelError:
        rest = f" (and {more} more: see the spawner's log)" if more > 0 else ""
        return Refused("FENCE_NOT_PROVEN", f"{why}{rest}; --unfenced starts sessions without a fence")
