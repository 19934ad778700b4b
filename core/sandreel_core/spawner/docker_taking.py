"""A spare becomes a boot. Whatever is in the way of that costs the session the time of an ordinary start, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import msgspec
from msgspec.structs import replace

from sandreel_core.errors import Refused, SandreelError
from sandreel_core.log import Log
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner import docker_spare
from sandreel_core.spawner.backend import BootSpec, Sandbox
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_boots import Boots
from sandreel_core.spawner.docker_images import Image
from sandreel_core.spawner.docker_spares import Spare, Spares
from sandreel_core.spawner.docker_workspace import Life, Workspaces
from sandreel_core.spawner.fencing import NOT_PROVEN
from sandreel_core.spawner.to_the_end import each_to_its_end


class Taking:
    """admit: returns when something may start in the org's network."""

    def __init__(
        self,
        engine: Engine,
        installation: str,
        spares: Spares,
        boots: Boots,
        workspaces: Workspaces,
        admit: Callable[[str], Coroutine[None, None, None]],
    ) -> None:
        self._engine = engine
        self._installation = installation
        self._spares = spares
        self._boots = boots
        self._workspaces = workspaces
        self._admit = admit
        self._log = Log("spawner.spares")

    async def boot(self, spec: BootSpec, life: Life, image: Image) -> Sandbox | None:
        """The boot, made of a spare, where there is one that serves; the caller holds the session's lock, and it has nothing yet.

        Raises Refused (FENCE_NOT_PROVEN).
        """
        pool = self._spares.pool(spec)
        if pool is None:
            return None
        spare = self._spares.take(pool, image)
        if spare is None:
            return None
        try:
            sandbox = await self._become(spare, spec, life)
        except BaseException as error:
            await asyncio.shield(self._give_up(spare, spec))
            if not isinstance(error, SandreelError) or (isinstance(error, Refused) and error.code == NOT_PROVEN):
                raise
            self._log.warning("a spare could not serve", session=str(spec.key), problem=str(error))
            return None
        if sandbox.status == "running":
            return sandbox
        self._log.warning("a spare could not serve", session=str(spec.key), problem="it had ended")
        await self._give_up(spare, spec)
        return None

    async def _become(self, spare: Spare, spec: BootSpec, life: Life) -> Sandbox:
        name = plan.container_name(self._installation, spec.key, spec.boot_id)
        files = docker_spare.volume_name(self._installation, spare.token)
        self._boots.forget(name)
        # The name first: of two that are asked for the same boot the engine lets one have it.
        await each_to_its_end(self._engine.rename(spare.id, name), self._admit(spec.key.org))
        await self._workspaces.lend(spec.key, replace(life, files=files))
        # Only now does it learn who it is: what is cut short before this has done nothing, and begins anew.
        await self._engine.tell(spare.line, msgspec.json.encode(replace(spec.settings, workspace=plan.WORKSPACE)))
        return await self._boots.sandbox(spare.id)

    async def _give_up(self, spare: Spare, spec: BootSpec) -> None:
        await self._spares.remove(spare, "it could not serve")
        await self._workspaces.remove(spec.key)
