"""Everything that an engine has of sandreel, by its labels: to see what nobody knows of any more, and to clear away a
whole installation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sandreel_core.errors import Conflict, Misconfigured
from sandreel_core.images import image
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner import docker_spare
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_death import instant
from sandreel_core.spawner.fence_docker import Tools, take_down_fence

Sort = Literal["container", "volume", "network"]


@dataclass(frozen=True, slots=True)
class Object:
    """One of them. `kind` as in `docker_plan`; `key` is the session's, where it is a session's. `spare` is the token of a
    spare, or of what it became; `files` names the volume with the files of a session that took one."""

    sort: Sort
    name: str
    kind: str
    installation: str
    org: str
    key: Key | None
    state: str
    created_at: datetime | None
    spare: str = ""
    files: str = ""


async def objects(engine: Engine, installation: str | None = None) -> Sequence[Object]:
    """Of one installation, or of all. Raises Unavailable."""
    labels = {plan.INSTALLATION: installation} if installation is not None else {}
    found = [_object("container", body, str(body["Names"][0]).lstrip("/")) for body in await engine.containers(labels)]
    found += [_object("volume", body, str(body["Name"])) for body in await engine.volumes(labels)]
    found += [_object("network", body, str(body["Name"])) for body in await engine.networks(labels)]
    return [each for each in found if each.installation]


async def erase(engine: Engine, installation: str) -> None:
    """Away with all of them, whatever they hold, and with its fence. For an installation that nobody will start again.
    Raises Unavailable."""
    found = await objects(engine, installation)
    for each in found:
        if each.sort == "container":
            await engine.remove(each.name, force=True)
    for each in found:
        if each.sort == "volume":
            await engine.remove_volume(each.name)
        elif each.sort == "network":
            try:
                await engine.remove_network(each.name)
            except Conflict:
                continue  # somebody else's container is in it
    if found:  # its networks may be gone already
        with suppress(Misconfigured):  # no image to do it with: then nobody has raised one
            await take_down_fence(Tools(engine, await asyncio.to_thread(image, "fence"), installation))


def _object(sort: Sort, body: dict[str, Any], name: str) -> Object:
    labels = docker_spare.named(body.get("Labels") or {}, name)
    org, session = labels.get(plan.ORG, ""), labels.get(plan.SESSION)
    return Object(
        sort=sort,
        name=name,
        kind=labels.get(plan.KIND, ""),
        installation=labels.get(plan.INSTALLATION, ""),
        org=org,
        key=Key(org, session) if session is not None else None,
        state=str(body.get("State", "")),
        created_at=_created(body),
        spare=labels.get(docker_spare.SPARE, ""),
        files=labels.get(docker_spare.FILES, ""),
    )


def _created(body: dict[str, Any]) -> datetime | None:
    """A container's listing says it in seconds, a volume in one notation, a network in another."""
    given = body.get("Created") or body.get("CreatedAt") or ""
    if isinstance(given, int):
        return datetime.fromtimestamp(given).astimezone()
    return instant(str(given))
