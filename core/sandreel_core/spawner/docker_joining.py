"""Services stay in every org's network: one whose container was made anew is joined as soon as it starts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from sandreel_core.errors import SandreelError
from sandreel_core.log import Log
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_network import Networks
from sandreel_core.spawner.lock import Locks

_AGAIN_S = 1.0
_COMPLAIN_EVERY_S = 30.0


class Joining:
    """
    services  names of their containers, which need not be ours nor be there yet
    orgs      the locks under which networks come and go
    joined    is told afterwards: addresses may have changed
    """

    def __init__(
        self, engine: Engine, networks: Networks, orgs: Locks, services: Sequence[str], joined: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._networks = networks
        self._orgs = orgs
        self._about = {"container": list(services), "event": ["start"]}
        self._joined = joined
        self._log = Log("spawner.docker")

    async def keep(self) -> None:
        """For ever. What cannot be joined now (a service that has gone again, an engine that is away) is tried every
        second."""
        complained = 0.0
        while True:
            try:
                async with self._engine.events(self._about, since=time.time()) as starts:
                    # Listening first: what starts between the two is joined twice, and not missed.
                    await self._rejoin()
                    async for _ in starts:
                        await self._rejoin()
            except SandreelError as error:
                if time.monotonic() - complained > _COMPLAIN_EVERY_S:
                    complained = time.monotonic()
                    self._log.warning("services cannot be joined to networks", problem=str(error))
            await asyncio.sleep(_AGAIN_S)

    async def _rejoin(self) -> None:
        for org in await self._networks.orgs():
            async with self._orgs.held(org):
                await self._networks.rejoin(org)
        self._joined()
