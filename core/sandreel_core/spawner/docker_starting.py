"""A boot's own container, made and started. (One that is a spare taken: docker_taking.py.)"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from sandreel_core.errors import NotFound, Refused, SandreelError, Unavailable
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner import docker_spare
from sandreel_core.spawner.backend import BootSpec, Sandbox
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_boots import Boots, Found
from sandreel_core.spawner.docker_workspace import Workspaces
from sandreel_core.spawner.fencing import NOT_PROVEN


class Starting:
    """admit: returns when something may start in the org's network."""

    def __init__(
        self,
        engine: Engine,
        terms: plan.Terms,
        boots: Boots,
        workspaces: Workspaces,
        admit: Callable[[str], Coroutine[None, None, None]],
    ) -> None:
        self._engine = engine
        self._terms = terms
        self._boots = boots
        self._workspaces = workspaces
        self._admit = admit

    async def boot(self, spec: BootSpec, dead: Sequence[Found], image: str, files: str) -> Sandbox:
        """The caller holds the session's lock; its org's network is there, and its workspace. The boots that are `dead` go when it has
        started; whatever fails leaves no container of it.

        files  the volume with the session's files, where that is not the session's own; else ""
        Raises Refused (BAD_IMAGE, FENCE_NOT_PROVEN), AlreadyExists, Unavailable.
        """
        mount = self._workspaces.mount(spec.key, files)
        body = plan.session_container(self._terms, spec, image=image, workspace=mount)
        if files:
            body["Labels"] |= {docker_spare.FILES: files}
        name = plan.container_name(self._terms.installation, spec.key, spec.boot_id)
        for boot in dead:
            if boot.boot_id == spec.boot_id:
                await self._engine.remove(boot.id, force=True)
        self._boots.forget(name)
        id = await self._engine.create(name, body)
        settings = replace(spec.settings, workspace=plan.WORKSPACE)
        try:
            # Only now: what is there keeps its network from being removed while the proof is taken.
            await self._admit(spec.key.org)
            await self._engine.start(id, msgspec.json.encode(settings))
        except (Refused, NotFound) as error:
            await self._engine.remove(id, force=True)
            if isinstance(error, Refused) and error.code == NOT_PROVEN:
                raise
            if isinstance(error, NotFound) and "network" in str(error):
                # The org's last session went between our look at it and our container.
                raise Unavailable(f"the org's network has gone: {error}", retry_after_s=0.5) from error
            # What cannot be started now can never be: the image has no such program, or the engine no such shape.
            raise Refused("BAD_IMAGE", f"image {image} cannot be started: {error}") from error
        except BaseException:
            await asyncio.shield(self._engine.remove(id, force=True))
            raise
        for boot in dead:
            with suppress(SandreelError):  # it is in nobody's way: the session's end removes it
                await self._engine.remove(boot.id, force=True)
        return await self._boots.sandbox(id)

    async def clear(self, boot: Found) -> None:
        """Away with a boot that never began, and with what it brought."""
        await self._engine.remove(boot.id, force=True)
        if boot.untold and boot.spare is not None:
            await self._engine.remove_volume(docker_spare.volume_name(self._terms.installation, boot.spare))
