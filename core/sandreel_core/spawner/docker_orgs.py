"""What an org's sandboxes share at an engine: its network, which is fenced, the services in it, and its caches."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from sandreel_core.bus.crew import Crew
from sandreel_core.errors import Unavailable
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_joining import Joining
from sandreel_core.spawner.docker_network import Networks, Service
from sandreel_core.spawner.docker_workspace import Caches
from sandreel_core.spawner.fence_docker import Tools, prove, raise_fence
from sandreel_core.spawner.fencing import Fencing
from sandreel_core.spawner.lock import Locks


class Orgs:
    """Made by `open`. Every method raises Unavailable when the engine cannot be asked."""

    def __init__(
        self, engine: Engine, installation: str, locks: Locks, networks: Networks, fencing: Fencing | None
    ) -> None:
        self._installation = installation
        self._locks = locks
        self._networks = networks
        self._fencing = fencing
        self._caches = Caches(engine, installation)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        engine: Engine,
        installation: str,
        *,
        locks: Path,
        pool: str,
        services: Sequence[Service],
        fence_image: str | None,
    ) -> AsyncGenerator[Orgs, None]:
        """As long as it is open, services are in every network, and fences stand. Raises Misconfigured, OSError."""
        networks = Networks(engine, installation, pool, services)
        fencing = None
        async with Crew() as crew:
            if fence_image is not None:
                tools = Tools(engine, fence_image, installation)
                fencing = Fencing(networks.fenced, partial(raise_fence, tools), partial(prove, tools))
                crew.start(fencing.keep())
            own = Locks(locks)
            if services:
                look = fencing.look if fencing is not None else _nothing
                names = [service.container for service in services]
                crew.start(Joining(engine, networks, own, names, look).keep())
            try:
                yield cls(engine, installation, own, networks, fencing)
            finally:
                if fencing is not None:
                    await fencing.close()

    async def prepare(self, org: str, image: str) -> None:
        """Network and caches are there. Raises Refused."""
        async with self._locks.held(org):
            await self._networks.ensure(org)
            await self._caches.ensure(org, image=image)

    async def admit(self, org: str) -> None:
        """Returns when something may start in the network. Raises Refused (FENCE_NOT_PROVEN)."""
        if self._fencing is not None:
            await self._fencing.admit(plan.network_name(self._installation, org))

    async def release(self, org: str) -> None:
        """Away with the network, where nothing is left in it."""
        async with self._locks.held(org):
            await self._networks.drop(org)

    async def tidy(self) -> None:
        """Away with networks without sandboxes, and services back into the others."""
        for org in await self._networks.orgs():
            async with self._locks.held(org):
                if not await self._networks.drop(org):
                    with suppress(Unavailable):  # it is joined when it starts
                        await self._networks.rejoin(org)


def _nothing() -> None:
    """Nobody keeps rules that follow addresses."""
