"""The boots that an engine has of an installation, read from containers: by their labels and the engine's own record."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sandreel_core.contract.boot import UNTOLD
from sandreel_core.errors import NotFound, Unavailable
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner import docker_spare
from sandreel_core.spawner.backend import Death, Fence, Key, Sandbox, Status, boot_order
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_death import MEMORY_EVENTS, death_of, happened, instant
from sandreel_core.spawner.docker_watch import MAX_CONTAINERS, Watch

_TOLD_WITHIN_S = 0.2  # the engine's event comes behind the time that it writes down
_REF = 12  # as `docker ps` shows it
_ENDED = ("exited", "dead", "removing")
_FENCES: dict[str, Fence] = {"proven": "proven"}
_EXITED = re.compile(r"Exited \((\d+)\)")  # of a listing, which has it nowhere else
_STATUS: dict[str, Status] = {"created": "starting", **dict.fromkeys(_ENDED, "dead")}


@dataclass(frozen=True, slots=True)
class Found:
    """A boot's container, as a listing or an inspection shows it."""

    id: str
    state: str
    labels: Mapping[str, str]
    exit_code: int | None = None

    @property
    def spare(self) -> str | None:
        """The token of the spare that became it, or is one."""
        return self.labels.get(docker_spare.SPARE)

    @property
    def files(self) -> str:
        """The volume with its session's files, where that is not the session's own; "" where it is, or has none yet."""
        lent = self.labels.get(docker_spare.FILES)
        if lent is None and self.spare is not None and not self.untold:
            lent = docker_spare.volume_name(self.labels.get(plan.INSTALLATION, ""), self.spare)
        return lent or ""

    @property
    def untold(self) -> bool:
        """It was a spare, and whoever took it died before it had said who it is."""
        return self.spare is not None and self.state in _ENDED and self.exit_code == UNTOLD

    @property
    def boot_id(self) -> str:
        return self.labels.get(plan.BOOT, "")

    @property
    def key(self) -> Key:
        return Key(self.labels.get(plan.ORG, ""), self.labels.get(plan.SESSION, ""))

    @property
    def status(self) -> Status:
        # Paused and restarting ones run: they have not ended. What has never known who it is can begin anew.
        return "starting" if self.untold else _STATUS.get(self.state, "running")


class Boots:
    """Of one installation. Every method raises Unavailable when the engine does not answer."""

    def __init__(self, engine: Engine, installation: str) -> None:
        self.watch = Watch(engine, installation, self.keys)
        self._engine = engine
        self._installation = installation
        # By container's name: the engine forgets, and what was said once is said again.
        self._deaths: OrderedDict[str, Death] = OrderedDict()

    async def of(self, key: Key) -> Sequence[Found]:
        """A session's, the latest first."""
        # By name, which those have as well that were spares.
        name = plan.container_name(self._installation, key, "")
        boots = await self._listed({plan.ORG: key.org}, f"^/?{name}[0-9]+-[0-9]+$")
        return sorted(boots, key=lambda boot: boot_order(boot.boot_id), reverse=True)

    async def settled(self, key: Key) -> Sequence[Found]:
        """As `of`, but that nothing is told to run which the engine has just seen the end of."""
        return [await self._looked_at(boot) if boot.status == "running" else boot for boot in await self.of(key)]

    async def _looked_at(self, boot: Found) -> Found:
        try:
            return _inspected(await self._engine.container(boot.id))
        except NotFound:
            return dataclasses.replace(boot, state="removing")

    async def keys(self) -> Iterable[Key]:
        return {boot.key for boot in await self._listed({})}

    async def lent(self) -> Iterable[Key]:
        """Sessions whose files are in a volume that is not their own."""
        return {boot.key for boot in await self._listed({}) if boot.files}

    async def one(self, key: Key, boot_id: str) -> Found:
        """Raises NotFound."""
        try:
            return _inspected(await self._engine.container(plan.container_name(self._installation, key, boot_id)))
        except NotFound as error:
            raise NotFound(f"there is no boot {boot_id}") from error

    async def latest(self, key: Key) -> Sandbox | None:
        for boot in await self.of(key):
            with suppress(NotFound):  # removed meanwhile: the one before it, then
                return await self.sandbox(boot.id)
        return None

    async def all(self) -> list[Sandbox]:
        """The latest boot of every session."""
        latest: dict[Key, Found] = {}
        for boot in await self._listed({}):
            if boot.key not in latest or boot_order(boot.boot_id) > boot_order(latest[boot.key].boot_id):
                latest[boot.key] = boot
        found = await asyncio.gather(*(self._still_there(boot.id) for boot in latest.values()))
        return [sandbox for sandbox in found if sandbox is not None]

    async def sandbox(self, id: str) -> Sandbox:
        """Raises NotFound."""
        body = await self._engine.container(id)
        boot = _inspected(body)
        sandbox = Sandbox(
            key=boot.key,
            installation=boot.labels.get(plan.INSTALLATION, ""),
            incarnation=int(boot.labels.get(plan.INCARNATION, "0")),
            boot_id=boot.boot_id,
            profile=boot.labels.get(plan.PROFILE, ""),
            status=boot.status,
            ref=boot.id[:_REF],
            node=boot.labels.get(plan.NODE, ""),
            created_at=instant(str(body["Created"])) or datetime.now(UTC),
            address=_address(body, plan.network_name(self._installation, boot.key.org)),
            fence=_FENCES.get(boot.labels.get(plan.FENCE, ""), "unfenced"),
        )
        if sandbox.status != "dead":
            return sandbox
        return dataclasses.replace(sandbox, death=await self._death(body))

    async def death(self, id: str, *, asked: bool = False) -> Death:
        """Of a container that has ended. `asked`: we have just ended it, so nobody need find out why.

        Raises NotFound, and Unavailable when it has not ended, or when the engine is going as well.
        """
        body = await self._engine.container(id)
        if body["State"]["Status"] not in _ENDED:
            raise Unavailable("the container has not ended", retry_after_s=1)
        return await self._death(body, asked=asked)

    def learn(self, name: str, death: Death) -> Death:
        """We know how the container of this name ended, and need not ask: it is said again from now on."""
        self._deaths[name] = death
        while len(self._deaths) > MAX_CONTAINERS:
            self._deaths.popitem(last=False)
        return death

    def forget(self, name: str) -> None:
        """There will be another container of this name."""
        self._deaths.pop(name, None)

    async def _death(self, body: Mapping[str, Any], *, asked: bool = False) -> Death:
        name = str(body["Name"]).lstrip("/")
        known = self._deaths.get(name)
        return known or self.learn(name, await self._explain(str(body["Id"]), body["State"], asked=asked))

    async def _explain(self, id: str, state: Mapping[str, Any], *, asked: bool) -> Death:
        events, restarted = self.watch.seen(id), False
        signalled = any(event.action == "kill" for event in events)
        if not self.watch.witnessed(id) or (signalled and not asked):
            # Somebody has sent it a signal: the engine itself, maybe, which is being stopped. Then we learn it from its
            # successor, which does not remember the start.
            await self._engine.ping()
            ended = instant(str(state["FinishedAt"])) or datetime.now(UTC)
            found, memory = await self._engine.history(id, until=ended.timestamp() + _TOLD_WITHIN_S)
            told = [happened(event) for event in found]
            restarted = not any(event.action == "start" for event in told) and memory < MEMORY_EVENTS
            events = told + events
        return death_of(state, events, restarted=restarted)

    async def _listed(self, labels: Mapping[str, str], name: str | None = None) -> Sequence[Found]:
        """Of sessions: a spare is none until it is taken."""
        asked = {plan.INSTALLATION: self._installation, plan.KIND: "session", **labels}
        found = [_listing(body) for body in await self._engine.containers(asked, name)]
        return [boot for boot in found if plan.SESSION in boot.labels]

    async def _still_there(self, id: str) -> Sandbox | None:
        with suppress(NotFound):
            return await self.sandbox(id)
        return None


def _address(body: Mapping[str, Any], network: str) -> str | None:
    joined = (body.get("NetworkSettings") or {}).get("Networks") or {}
    return str(joined.get(network, {}).get("IPAddress") or "") or None


def _listing(body: Mapping[str, Any]) -> Found:
    code = _EXITED.match(str(body.get("Status", "")))
    labels = docker_spare.named(body["Labels"] or {}, str(body["Names"][0]).lstrip("/"))
    return Found(str(body["Id"]), str(body["State"]), labels, int(code[1]) if code else None)


def _inspected(body: Mapping[str, Any]) -> Found:
    state, labels = body["State"], docker_spare.named(body["Config"]["Labels"] or {}, str(body["Name"]).lstrip("/"))
    return Found(str(body["Id"]), str(state["Status"]), labels, int(state.get("ExitCode", 0)))
