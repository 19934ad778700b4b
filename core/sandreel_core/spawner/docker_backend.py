"""Sessions as containers of one engine. A boot is a container, found again by its labels; its record is the engine's.

A container that ended is kept until the next boot or the session's end: it says why, and while it is there no
clean-up of unused volumes takes the workspace.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from sandreel_core.errors import AlreadyExists, Conflict, Denied, NotFound, Refused, SandreelError, Unavailable
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner.backend import BootSpec, Death, Fence, Key, Sandbox, Status, boot_order
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_death import MEMORY_EVENTS, death_of, happened, instant
from sandreel_core.spawner.docker_network import Networks, Service
from sandreel_core.spawner.docker_watch import MAX_CONTAINERS, Watch
from sandreel_core.spawner.docker_workspace import Directories, Life, Volumes, Workspaces, ensure_cache
from sandreel_core.spawner.lock import Locks

_DEATH_TIMEOUT_S = 10.0
_AGAIN_S = 1.0
_TOLD_WITHIN_S = 0.2  # the engine's event comes behind the time that it writes down
_REF = 12  # as `docker ps` shows it
_ENDED = ("exited", "dead", "removing")
_STATUS: dict[str, Status] = {"created": "starting", **dict.fromkeys(_ENDED, "dead")}


@dataclass(frozen=True, slots=True)
class Found:
    """A boot's container, as a listing or an inspection shows it."""

    id: str
    state: str
    labels: dict[str, str]

    @property
    def boot_id(self) -> str:
        return self.labels.get(plan.BOOT, "")

    @property
    def status(self) -> Status:
        # Paused and restarting ones run: they have not ended.
        return _STATUS.get(self.state, "running")


class DockerBackend:
    """Made by `open`."""

    name = "docker"
    single_node = True
    # Nobody has proven yet that nothing gets out of an org's network.
    fence: Fence = "unfenced"

    def __init__(
        self,
        engine: Engine,
        terms: plan.Terms,
        *,
        locks: Path,
        workspaces: Workspaces,
        networks: Networks,
        disk_bytes: int | None,
    ) -> None:
        self.node = terms.node
        self._engine = engine
        self._terms = terms
        self._workspaces = workspaces
        self._networks = networks
        self._disk_bytes = disk_bytes
        self._sessions = Locks(locks / "session")
        self._orgs = Locks(locks / "org")
        self._watch = Watch(engine, terms.installation, self._keys)
        # By container: the engine forgets, and what was said once is said again.
        self._deaths: OrderedDict[str, Death] = OrderedDict()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        terms: plan.Terms,
        *,
        locks: Path,
        url: str | None = None,
        workspaces: Path | None = None,
        pool: str,
        services: Sequence[Service] = (),
        disk_bytes: int | None = None,
    ) -> AsyncGenerator[DockerBackend, None]:
        """The engine need not answer yet.

        locks       a directory that all spawners of this machine share
        workspaces  a directory of the host for them; None: named volumes
        pool        from which every org's network gets a range of its own
        services    what every org's network has in it
        Raises Misconfigured, OSError.
        """
        for profile in terms.users:
            terms.user(profile)
        async with Engine.open(url) as engine:
            networks = Networks(engine, terms.installation, pool, services)
            files: Workspaces = Volumes(engine, terms.installation)
            if workspaces is not None:
                files = Directories(workspaces, terms.installation)
            yield cls(engine, terms, locks=locks, workspaces=files, networks=networks, disk_bytes=disk_bytes)

    # -- create

    async def create(self, spec: BootSpec) -> Sandbox:
        async with self._sessions.held(str(spec.key)):
            before = await self._boots(spec.key)
            for boot in before:
                # We hold the lock: whoever made one that was never started has died, and it knows nothing yet.
                if boot.status == "starting":
                    await self._engine.remove(boot.id, force=True)
                elif boot.status != "dead":
                    raise AlreadyExists(f"boot {boot.boot_id} of the session is there")
            dead = [boot for boot in before if boot.status == "dead"]
            life = Life(spec.settings.installation, spec.incarnation)
            found = await self._workspaces.find(spec.key)
            if spec.fresh and found is not None and found != life:
                raise AlreadyExists("there is a workspace that is not this session's")
            if not spec.fresh and found is None:
                raise NotFound("the workspace is not there")
            try:
                await self._prepare(spec, life, make=found is None)
                return await self._start(spec, dead)
            except BaseException:
                if spec.fresh:
                    await asyncio.shield(self._undo(spec, dead))
                raise

    async def _prepare(self, spec: BootSpec, life: Life, *, make: bool) -> None:
        """What the container needs: its image, its org's network and caches, its workspace."""
        image = self._terms.image_of(spec)
        try:
            await self._engine.image(image)
        except NotFound as error:
            raise Refused(
                "NO_IMAGE", f"image {image} is not on this machine: `docker pull` it, or `make image`"
            ) from error
        works = [self._prepare_org(spec.key.org, image)]
        if make:
            user = self._terms.user(spec.profile)
            limit = plan.wants_disk_limit(spec.limits, self._disk_bytes)
            works.append(self._workspaces.make(spec.key, life, user, image=image, limit_bytes=limit))
        # Each to its end, so that whoever cleans up behind a failure meets nothing that is still being made.
        for result in await asyncio.gather(*works, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _prepare_org(self, org: str, image: str) -> None:
        async with self._orgs.held(org):
            await self._networks.ensure(org)
            await ensure_cache(self._engine, self._terms.installation, org, image=image)

    async def _start(self, spec: BootSpec, dead: Sequence[Found]) -> Sandbox:
        body = plan.session_container(self._terms, spec, workspace=self._workspaces.mount(spec.key))
        name = plan.container_name(self._terms.installation, spec.key, spec.boot_id)
        for boot in dead:
            if boot.boot_id == spec.boot_id:
                await self._engine.remove(boot.id, force=True)
        id = await self._engine.create(name, body)
        settings = replace(spec.settings, workspace=plan.WORKSPACE)
        try:
            await self._engine.start(id, msgspec.json.encode(settings))
        except (Refused, NotFound) as error:
            # What cannot be started now can never be: the image has no such program, or the engine no such shape.
            await self._engine.remove(id, force=True)
            raise Refused("BAD_IMAGE", f"image {body['Image']} cannot be started: {error}") from error
        except BaseException:
            await asyncio.shield(self._engine.remove(id, force=True))
            raise
        for boot in dead:
            with suppress(SandreelError):  # it is in nobody's way: the session's end removes it
                await self._engine.remove(boot.id, force=True)
        return self._sandbox(await self._engine.container(id))

    async def _undo(self, spec: BootSpec, dead: Iterable[Found]) -> None:
        """Nothing of a fresh boot is left. What cannot be undone now is `destroy`'s."""
        with suppress(SandreelError):
            for boot in dead:
                await self._engine.remove(boot.id, force=True)
            await self._workspaces.remove(spec.key)
            async with self._orgs.held(spec.key.org):
                await self._networks.drop(spec.key.org)

    # -- stop and destroy

    async def stop(self, key: Key, boot_id: str, *, grace_s: float) -> Death:
        boot = await self._boot(key, boot_id)
        if boot.status == "starting":
            return await self._bury(key, boot_id)
        if boot.status == "running":
            await self._terminate(boot, grace_s)
        return await self._death(await self._engine.container(boot.id))

    async def _terminate(self, boot: Found, grace_s: float) -> None:
        with suppress(Conflict):  # it ended meanwhile
            if await self._end(boot, "SIGTERM", grace_s) or await self._end(boot, "SIGKILL", _DEATH_TIMEOUT_S):
                return
            raise Unavailable("the container survives SIGKILL", retry_after_s=30)

    async def _end(self, boot: Found, signal: str, within_s: float) -> bool:
        """Whether it has ended by then. It is told again every second: what comes before PID 1 has a handler is lost."""
        limit = time.monotonic() + within_s
        while (left_s := limit - time.monotonic()) > 0:
            await self._engine.kill(boot.id, signal)
            if await self._engine.ended(boot.id, min(left_s, _AGAIN_S)):
                return True
        return False

    async def _bury(self, key: Key, boot_id: str) -> Death:
        """Remove a boot that was never started, unless somebody starts it just now."""
        async with self._sessions.held(str(key)):
            boot = await self._boot(key, boot_id)
            if boot.status != "starting":
                raise Unavailable("the boot was being started", retry_after_s=0.2)
            await self._engine.remove(boot.id, force=True)
        return Death("exited")

    async def destroy(self, key: Key, *, installation: str, boot_id: str) -> None:
        if installation != self._terms.installation:
            raise Denied("the session belongs to another installation")
        async with self._sessions.held(str(key)):
            boots = await self._boots(key)
            for boot in boots:
                if boot_order(boot.boot_id) > boot_order(boot_id):
                    raise Conflict(f"boot {boot.boot_id} is later than {boot_id}")
                if boot.status != "dead":
                    raise Conflict(f"boot {boot.boot_id} is not dead")
            life = await self._workspaces.find(key)
            if life is not None and life.incarnation > boot_order(boot_id)[0]:
                raise Conflict("the workspace is a later incarnation's")
            for boot in boots:
                await self._engine.remove(boot.id)
            await self._workspaces.remove(key)
        async with self._orgs.held(key.org):
            await self._networks.drop(key.org)

    # -- inspect, list, watch

    async def inspect(self, key: Key) -> Sandbox | None:
        boots = await self._boots(key)
        for boot in boots:
            with suppress(NotFound):  # removed meanwhile: the one before it, then
                return await self._complete(await self._engine.container(boot.id))
        return None

    async def list(self) -> Sequence[Sandbox]:
        """Of this installation alone: another one's names are others, so that nothing of it is ever in the way."""
        await self._networks.rejoin()
        latest: dict[Key, Found] = {}
        for boot in await self._all({}):
            key = Key(boot.labels.get(plan.ORG, ""), boot.labels.get(plan.SESSION, ""))
            if key not in latest or boot_order(boot.boot_id) > boot_order(latest[key].boot_id):
                latest[key] = boot
        inspected = await asyncio.gather(*(self._inspected(boot.id) for boot in latest.values()))
        return [await self._complete(body) for body in inspected if body is not None]

    async def _inspected(self, id: str) -> dict[str, Any] | None:
        with suppress(NotFound):
            return await self._engine.container(id)
        return None

    def watch(self) -> AsyncGenerator[Key, None]:
        return self._watch.ends()

    async def _keys(self) -> Iterable[Key]:
        return {Key(boot.labels.get(plan.ORG, ""), boot.labels.get(plan.SESSION, "")) for boot in await self._all({})}

    # -- what the engine has

    async def _all(self, labels: dict[str, str]) -> Sequence[Found]:
        asked = {plan.INSTALLATION: self._terms.installation, plan.KIND: "session"} | labels
        return [_found(body) for body in await self._engine.containers(asked)]

    async def _boots(self, key: Key) -> Sequence[Found]:
        """The latest first."""
        boots = await self._all({plan.ORG: key.org, plan.SESSION: key.session})
        return sorted(boots, key=lambda boot: boot_order(boot.boot_id), reverse=True)

    async def _boot(self, key: Key, boot_id: str) -> Found:
        name = plan.container_name(self._terms.installation, key, boot_id)
        try:
            body = await self._engine.container(name)
        except NotFound as error:
            raise NotFound(f"there is no boot {boot_id}") from error
        return Found(str(body["Id"]), str(body["State"]["Status"]), dict(body["Config"]["Labels"]))

    async def _complete(self, body: dict[str, Any]) -> Sandbox:
        sandbox = self._sandbox(body)
        if sandbox.status != "dead":
            return sandbox
        return dataclasses.replace(sandbox, death=await self._death(body))

    async def _death(self, body: dict[str, Any]) -> Death:
        """Raises Unavailable when the engine does not answer."""
        state = body["State"]
        if state["Status"] not in _ENDED:
            raise Unavailable("the container has not ended", retry_after_s=1)
        id = str(body["Id"])
        if id not in self._deaths:
            self._deaths[id] = await self._explain(id, state)
            while len(self._deaths) > MAX_CONTAINERS:
                self._deaths.popitem(last=False)
        return self._deaths[id]

    async def _explain(self, id: str, state: dict[str, Any]) -> Death:
        events = self._watch.seen(id)
        forgetful = False
        if not any(event.action == "start" for event in events):
            ended = instant(str(state["FinishedAt"])) or datetime.now(UTC)
            told, memory = await self._engine.history(id, until=ended.timestamp() + _TOLD_WITHIN_S)
            events = [happened(event) for event in told] + events
            forgetful = memory >= MEMORY_EVENTS
        return death_of(state, events, forgetful=forgetful)

    def _sandbox(self, body: dict[str, Any]) -> Sandbox:
        labels = dict(body["Config"]["Labels"])
        found = Found(str(body["Id"]), str(body["State"]["Status"]), labels)
        return Sandbox(
            key=Key(labels.get(plan.ORG, ""), labels.get(plan.SESSION, "")),
            installation=labels.get(plan.INSTALLATION, ""),
            incarnation=int(labels.get(plan.INCARNATION, "0")),
            boot_id=found.boot_id,
            profile=labels.get(plan.PROFILE, ""),
            status=found.status,
            ref=found.id[:_REF],
            node=labels.get(plan.NODE, ""),
            created_at=instant(str(body["Created"])) or datetime.now(UTC),
        )


def _found(body: dict[str, Any]) -> Found:
    return Found(str(body["Id"]), str(body["State"]), dict(body["Labels"] or {}))
