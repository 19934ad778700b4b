"""Sessions as containers of one engine. A boot is a container, found again by its labels; its record is the engine's.

A container that ended is kept until the next boot or the session's end: it says why, and while it is there no
clean-up of unused volumes takes the workspace.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from sandreel_core.bus.crew import Crew
from sandreel_core.contract.boot import SPOOL_BYTES
from sandreel_core.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    Misconfigured,
    NotFound,
    SandreelError,
    Unavailable,
)
from sandreel_core.metrics import Metrics
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner import docker_spare, fence_docker
from sandreel_core.spawner.backend import BootSpec, Death, Key, Sandbox, boot_order
from sandreel_core.spawner.docker import TIMEOUT_S, Engine
from sandreel_core.spawner.docker_boots import Boots, Found
from sandreel_core.spawner.docker_ending import Ending
from sandreel_core.spawner.docker_images import chosen
from sandreel_core.spawner.docker_lent import Lent
from sandreel_core.spawner.docker_network import Service
from sandreel_core.spawner.docker_orgs import Orgs
from sandreel_core.spawner.docker_remains import Remains
from sandreel_core.spawner.docker_spare import Warm
from sandreel_core.spawner.docker_spares import Making, Spares
from sandreel_core.spawner.docker_starting import Starting
from sandreel_core.spawner.docker_taking import Taking
from sandreel_core.spawner.docker_workspace import Directories, Life, Volumes, Workspaces
from sandreel_core.spawner.lock import Locks
from sandreel_core.spawner.to_the_end import each_to_its_end

_HAND_S = 600.0  # what it is made for takes some milliseconds


class DockerBackend:
    """Made by `open`."""

    name = "docker"
    single_node = True
    exclusive_names = True  # `docker_plan.mark`

    def __init__(
        self,
        engine: Engine,
        terms: plan.Terms,
        *,
        locks: Locks,
        orgs: Orgs,
        workspaces: Workspaces,
        disk_bytes: int | None,
    ) -> None:
        self.node = terms.node
        self._engine = engine
        self._terms = terms
        self._workspaces = workspaces
        self._disk_bytes = disk_bytes
        self._sessions = locks
        self._orgs = orgs
        self._boots = Boots(engine, terms.installation)
        self._lent = Lent(terms.installation, self._boots, workspaces, locks)
        self._starting = Starting(engine, terms, self._boots, workspaces, orgs.admit)
        self._ending = Ending(engine, terms.installation, self._boots)
        self._remains = Remains(engine, terms)
        self._taking: Taking | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        terms: plan.Terms,
        *,
        locks: Path,
        url: str | None = None,
        timeout_s: float = TIMEOUT_S,
        workspaces: Path | None = None,
        pool: str,
        services: Sequence[Service] = (),
        fence_image: str | None = None,
        disk_bytes: int | None = None,
        warm: Sequence[Warm] = (),
        spool_bytes: int = SPOOL_BYTES,
        metrics: Metrics | None = None,
    ) -> AsyncGenerator[DockerBackend, None]:
        """The engine need not answer yet.

        locks       a directory that all spawners of this machine share
        workspaces  a directory of the host for them; None: named volumes
        pool        from which every org's network gets a range of its own
        services    what every org's network has in it
        fence_image raises and proves the fence; None: sessions start without one
        warm        pools of spares, which need volumes
        spool_bytes of every session's recorder
        Raises Misconfigured, OSError.
        """
        for profile in terms.users:
            terms.user(profile)
        if warm and workspaces is not None:
            raise Misconfigured("[docker] warm needs workspaces that are volumes, not directories of the host")
        docker_spare.check(warm)
        async with Engine.open(url, timeout_s=timeout_s) as engine:
            files: Workspaces = Volumes(engine, terms.installation)
            if workspaces is not None:
                files = Directories(workspaces, terms.installation)
            if fence_image is not None:
                terms = dataclasses.replace(terms, fence="proven")
            async with (
                Orgs.open(
                    *(engine, terms.installation),
                    locks=locks / "org",
                    pool=pool,
                    services=services,
                    fence_image=fence_image,
                ) as orgs,
                Crew() as crew,
            ):
                sessions = Locks(locks / "session")
                backend = cls(engine, terms, locks=sessions, orgs=orgs, workspaces=files, disk_bytes=disk_bytes)
                if warm:
                    crew.start(backend._keep_warm(warm, spool_bytes, metrics or Metrics()))
                yield backend

    def _keep_warm(self, warm: Sequence[Warm], spool_bytes: int, metrics: Metrics) -> Coroutine[None, None, None]:
        """From now on boots come from spares, where there are any, for as long as what this returns runs."""
        making = Making(self._terms, self._orgs, spool_bytes=spool_bytes, disk_bytes=self._disk_bytes)
        spares = Spares(self._engine, warm, making, self._remains, metrics)
        installation = self._terms.installation
        self._taking = Taking(self._engine, installation, spares, self._boots, self._workspaces, self._orgs.admit)
        return spares.keep()

    # -- create

    async def create(self, spec: BootSpec) -> Sandbox:
        async with self._sessions.held(str(spec.key)):
            before, found = await asyncio.gather(self._boots.settled(spec.key), self._workspaces.find(spec.key))
            for boot in before:
                # We hold the lock: whoever made one that was never started has died, and it knows nothing yet.
                if boot.status == "starting":
                    await self._starting.clear(boot)
                elif boot.status != "dead":
                    raise AlreadyExists(f"boot {boot.boot_id} of the session is there")
            dead = [boot for boot in before if boot.status == "dead"]
            life = Life(spec.settings.installation, spec.incarnation)
            if spec.fresh and found is not None and not found.same(life):
                raise AlreadyExists("there is a workspace that is not this session's")
            if not spec.fresh:
                found = found or await self._lent.say(spec.key, dead)
                if found is None:
                    raise NotFound("the workspace is not there")
            try:
                image = await chosen(self._engine, self._terms.images(spec))
                if spec.fresh:
                    if found is None and not dead and self._taking is not None:
                        sandbox = await self._taking.boot(spec, life, image)
                        if sandbox is not None:
                            return sandbox
                    await self._make(spec, life, found, image.name)
                else:
                    await self._orgs.prepare(spec.key.org, image.name)
                files = "" if spec.fresh or found is None else found.files
                return await self._starting.boot(spec, dead, image.name, files)
            except BaseException:
                if spec.fresh:
                    await asyncio.shield(self._undo(spec, dead))
                raise

    async def _make(self, spec: BootSpec, life: Life, found: Life | None, image: str) -> None:
        """What a fresh container needs: its org's network and caches, and its workspace, also where there is one: whoever made
        that may have died before it was filled."""
        user = self._terms.user(spec.profile)
        limit = plan.wants_disk_limit(spec.limits, self._disk_bytes)
        if found is not None and found.files:  # lent to a boot of a spare that never was one
            await self._workspaces.remove(spec.key, (found.files,))
        await each_to_its_end(
            self._orgs.prepare(spec.key.org, image),
            self._workspaces.make(spec.key, life, user, image=image, limit_bytes=limit),
        )

    async def _undo(self, spec: BootSpec, dead: Iterable[Found]) -> None:
        """Nothing of a fresh boot is left. What cannot be undone now is `destroy`'s."""
        with suppress(SandreelError):
            for boot in dead:
                await self._engine.remove(boot.id, force=True)
            found = await self._workspaces.find(spec.key)
            await self._workspaces.remove(spec.key, (found.files,) if found is not None and found.files else ())
            await self._orgs.release(spec.key.org)

    # -- stop and destroy

    async def stop(self, key: Key, boot_id: str, *, grace_s: float) -> Death:
        death = await self._ending.stop(key, boot_id, grace_s=grace_s)
        return death if death is not None else await self._bury(key, boot_id)

    async def _bury(self, key: Key, boot_id: str) -> Death:
        """Remove a boot that was never started, unless somebody starts it just now."""
        async with self._sessions.held(str(key)):
            boot = await self._boots.one(key, boot_id)
            if boot.status != "starting":
                raise Unavailable("the boot was being started", retry_after_s=0.2)
            await self._starting.clear(boot)
        return Death("exited")

    async def destroy(self, key: Key, *, installation: str, boot_id: str) -> None:
        if installation != self._terms.installation:
            raise Denied("the session belongs to another installation")
        async with self._sessions.held(str(key)):
            boots, life = await asyncio.gather(self._boots.settled(key), self._workspaces.find(key))
            for boot in boots:
                if boot_order(boot.boot_id) > boot_order(boot_id):
                    raise Conflict(f"boot {boot.boot_id} is later than {boot_id}")
                if boot.status != "dead":
                    raise Conflict(f"boot {boot.boot_id} is not dead")
            if life is not None and life.incarnation > boot_order(boot_id)[0]:
                raise Conflict("the workspace is a later incarnation's")
            for boot in boots:
                await self._engine.remove(boot.id)
            files = {boot.files for boot in boots} | {life.files if life is not None else ""}
            await each_to_its_end(self._workspaces.remove(key, files - {""}), self._orgs.release(key.org))

    # -- inspect, list, watch

    async def inspect(self, key: Key) -> Sandbox | None:
        return await self._boots.latest(key)

    async def list(self) -> Sequence[Sandbox]:
        """Of this installation alone: another one's names are others, so that nothing of it is ever in the way."""
        await self._tidy()
        return await self._boots.all()

    async def _tidy(self) -> None:
        """What a spawner that died has left half done: services outside their networks, networks without sessions, hands.
        And what a clean-up of the engine took that we miss."""
        await self._orgs.tidy()
        for kind in ("hand", fence_docker.KIND):
            for body in await self._engine.containers({plan.INSTALLATION: self._terms.installation, plan.KIND: kind}):
                if time.time() - float(body["Created"]) > _HAND_S:
                    await self._engine.remove(str(body["Id"]), force=True)
        await self._lent.tidy()
        if self._taking is None:  # else the pool looks after them
            await self._remains.clear_containers()
        await self._remains.clear_volumes()

    def watch(self) -> AsyncGenerator[Key, None]:
        return self._boots.watch.ends()
