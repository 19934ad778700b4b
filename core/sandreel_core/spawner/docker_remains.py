"""What killed spawners have left of warm pools: containers that ended under a spare's name, and volumes that nobody refers to.

A spare is made, and taken away, in two steps: its volume is there before its container and goes after it. So whoever dies in between
leaves a volume that is no session's. That only an empty one is removed keeps the law that nothing but `destroy` deletes files:
where somebody has pruned both the container and the volume that say whose they are, they look the same.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from sandreel_core.clock import new_token
from sandreel_core.errors import Conflict, NotFound, Refused
from sandreel_core.log import Log
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner import docker_spare as spare
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_images import chosen
from sandreel_core.spawner.docker_workspace import EMPTY, HAND_PREFIX

# What was made and never started, or has no container, belongs to somebody who is at it, or has died.
HALF_MADE_S = 600.0
# Headers of an archive: two of directories that are always there, and one more of whatever its name is.
_LOOK_BYTES = 64 * 1024


class Remains:
    """Of one installation at one engine. Every method raises Unavailable when that does not answer."""

    def __init__(self, engine: Engine, terms: plan.Terms) -> None:
        self._engine = engine
        self._terms = terms
        # Volumes that nobody refers to and that hold files: looked into once.
        self._kept: set[str] = set()
        self._log = Log("spawner.spares")

    async def clear_containers(self) -> tuple[set[str], int]:
        """The tokens of spares that run, and how many were removed that have ended, whoever made them."""
        alive, removed = set[str](), 0
        name = f"^/?{spare.container_name(self._terms.installation, '')}"
        for body in await self._engine.containers(self._ours("session"), name):
            state, token = str(body["State"]), str((body["Labels"] or {}).get(spare.SPARE, ""))
            if state == "running":
                alive.add(token)
            elif state != "created" or time.time() - float(body["Created"]) > HALF_MADE_S:
                await self._engine.remove(str(body["Id"]), force=True)
                await self._engine.remove_volume(spare.volume_name(self._terms.installation, token))
                removed += 1
                self._log.info("a spare was removed", why="it does not run")
        return alive, removed

    async def clear_volumes(self) -> None:
        """Away with those of spares that are in no container and that no session names, and that hold nothing."""
        # Before the containers: what is given to a session meanwhile has one.
        volumes = await self._engine.volumes(self._ours("workspace"))
        named = {_labels(body).get(spare.FILES, "") for body in volumes}
        spares = {str(body["Name"]): body for body in volumes if spare.SPARE in _labels(body)}
        doubted = [name for name in spares if name not in named | self._kept and _is_old(spares[name])]
        if not doubted:
            return
        containers = [_labels(body) for body in await self._engine.containers(self._ours("session"))]
        held = {labels.get(what, "") for labels in containers for what in (spare.SPARE, spare.FILES)}
        lone = [name for name in doubted if not {name, _labels(spares[name])[spare.SPARE]} & held]
        with suppress(Refused):  # there is no image to look into them with
            for name in lone:
                await self._clear_volume(name)

    async def _clear_volume(self, name: str) -> None:
        if not await self._is_empty(name):
            self._kept.add(name)
            self._log.warning("a volume with files is nobody's: it is kept", volume=name)
            return
        with suppress(Conflict):
            await self._engine.remove_volume(name)
            self._log.info("a volume was removed", volume=name, why="its spare is gone, and it is empty")

    async def _is_empty(self, volume: str) -> bool:
        image = await chosen(self._engine, self._terms.defaults("default"))
        body = plan.hand_container(self._terms.installation, image.name, [plan.volume_mount(volume, plan.WORKSPACE)])
        id = await self._engine.create(HAND_PREFIX + new_token(), body)
        try:
            return holds_nothing(await self._engine.beginning(id, plan.WORKSPACE, _LOOK_BYTES))
        except NotFound:  # somebody has removed the hand
            return False
        finally:
            await self._engine.remove(id, force=True)

    def _ours(self, kind: str) -> dict[str, str]:
        return {plan.INSTALLATION: self._terms.installation, plan.KIND: kind}


def holds_nothing(archive: bytes) -> bool:
    """Whether this beginning of an archive of a workspace has nothing but what every workspace begins with."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            return {member.name for member in tar} <= EMPTY
    except tarfile.TarError:
        return False


def _labels(body: Mapping[str, Any]) -> Mapping[str, str]:
    return body.get("Labels") or {}


def _is_old(volume: Mapping[str, Any]) -> bool:
    """Not of one whose age cannot be read."""
    with suppress(ValueError, TypeError):
        return time.time() - datetime.fromisoformat(volume["CreatedAt"]).timestamp() > HALF_MADE_S
    return False
