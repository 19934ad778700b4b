"""What `sandreel doctor` says of the container engine, and what of it nobody knows of any more (`--orphans`)."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from sandreel_core.cli.check import Check
from sandreel_core.cli.connection import section, settings
from sandreel_core.errors import Conflict, Misconfigured, NotFound, Refused, SandreelError, Unavailable

if TYPE_CHECKING:
    import argparse

    from sandreel_core.session import Session
    from sandreel_core.spawner.backend import Key
    from sandreel_core.spawner.docker import Engine
    from sandreel_core.spawner.docker_census import Object

_ENGINE = "container engine"
_WITHIN_S = 5.0
_PROBE = "sandreel-doctor-probe"
CACHE_STAYS = "kept for its next one, or until --drop-caches"
# As long as the spawner spares what may belong to an intent that it has not read yet ([spawner] create_timeout_s).
_YOUNG = timedelta(seconds=180)


class Orphan(Struct, frozen=True, kw_only=True):
    """An object that no session has, and what becomes of it."""

    sort: str
    name: str
    found: str
    would: str
    org: str = ""


async def checks() -> list[Check]:
    """The engine, the images, and whether it keeps disk limits."""
    from sandreel_core.embedded.choice import missing
    from sandreel_core.embedded.wiring import Wiring

    mend = "install Docker and run `make image`: without, sessions are processes of this machine"
    try:
        from sandreel_core.spawner.docker import Engine

        wiring = Wiring.read(os.environ)
        async with Engine.open(wiring.docker.host, timeout_s=_WITHIN_S) as engine:
            info = await engine.info()
            found = f"{info.get('ServerVersion', '?')}, storage {info.get('Driver', '?')}"
            lacks = await missing(wiring)
            image = (
                Check(name="images", level="ok", found="all that sessions need are there")
                if lacks is None
                else Check(name="images", level="warn", found=lacks, mend="make image")
            )
            return [Check(name=_ENGINE, level="ok", found=found), image, await _disk_limits(engine)]
    except ImportError:
        mend = "pip install 'sandreel[docker]'"
        return [Check(name=_ENGINE, level="warn", found="its SDK is not installed", mend=mend)]
    except SandreelError as error:
        return [Check(name=_ENGINE, level="warn", found=str(error), mend=mend)]


async def _disk_limits(engine: Engine) -> Check:
    name = "disk limits"
    try:
        await engine.make_volume(_PROBE, {}, {"size": "64m"})
    except (Refused, Unavailable):
        mend = "keep the engine's data on XFS with project quotas (mount option pquota), or watch the disk"
        return Check(
            name=name, level="warn", found="the engine's storage keeps none: a workspace may fill it", mend=mend
        )
    await engine.remove_volume(_PROBE)
    return Check(name=name, level="ok", found="the engine's storage keeps them")


async def orphans(args: argparse.Namespace) -> Sequence[Orphan]:
    """What the engine has and no session, by the log. Nothing is touched. Raises Misconfigured, Unavailable."""
    from sandreel_core.spawner.docker import Engine
    from sandreel_core.spawner.docker_settings import DockerSettings

    async with Engine.open(section(args, DockerSettings, operator=True).host) as engine:
        return await _orphans(args, engine)


async def drop_caches(args: argparse.Namespace) -> Sequence[Orphan]:
    """Remove the package caches of orgs that have no session, and say of each what became of it. Raises Misconfigured,
    Unavailable."""
    from pathlib import Path

    from sandreel_core.spawner.docker import Engine
    from sandreel_core.spawner.docker_settings import DockerSettings
    from sandreel_core.spawner.lock import Locks
    from sandreel_core.spawner.settings import Settings

    orgs = Path(section(args, Settings, operator=True).data) / "locks" / "org"
    dropped: list[Orphan] = []
    async with Engine.open(section(args, DockerSettings, operator=True).host) as engine:
        for cache in [each for each in await _orphans(args, engine) if each.would == CACHE_STAYS]:
            # A spawner of this machine that is about to make the org's first session holds the lock.
            async with Locks(orgs).held(cache.org) if orgs.is_dir() else nullcontext():
                try:
                    await engine.remove_volume(cache.name)
                except Conflict:
                    dropped.append(replace(cache, would="kept: a container has it"))
                else:
                    dropped.append(replace(cache, would="removed"))
    return dropped


async def _orphans(args: argparse.Namespace, engine: Engine) -> list[Orphan]:
    from sandreel_core.client import Client
    from sandreel_core.spawner.docker_census import objects
    from sandreel_core.spawner.settings import Settings

    installation = section(args, Settings, operator=True).installation
    if installation is None:
        raise Misconfigured("whose objects? Give [spawner] installation, or --data of a stack")
    found = await objects(engine)
    known: dict[Key, Session] = {}
    busy: set[str] = set()
    ours = [each for each in found if each.installation == installation]
    async with Client.connect(settings(args), actor="doctor") as client:
        for key in {each.key for each in ours if each.key is not None}:
            try:
                known[key] = (await client.session(*key)).state
            except NotFound:
                continue
        for org in {each.org for each in ours if each.kind == "cache"}:
            # One whose files are directories of the host may have nothing at the engine while it is stopped.
            if any(info.state.exists for info in await client.sessions(org)):
                busy.add(org)
    now = datetime.now(UTC)
    return [orphan for each in found if (orphan := judge(each, found, known, installation, now, busy=busy))]


def judge(
    each: Object,
    found: Sequence[Object],
    known: Mapping[Key, Session],
    installation: str,
    now: datetime,
    *,
    busy: Collection[str] = (),
) -> Orphan | None:
    """What becomes of an object; None: it is in use. `busy`: orgs that have sessions by the log. Pure."""

    def orphan(what: str, would: str) -> Orphan:
        return Orphan(sort=each.sort, name=each.name, found=what, would=would, org=each.org)

    if each.installation != installation:
        return orphan(f"belongs to installation {each.installation}", "left alone")
    if each.created_at is not None and now - each.created_at < _YOUNG:
        return None
    if each.key is not None:
        session = known.get(each.key)
        if session is not None and session.exists:
            return None
        if session is not None and session.phase == "destroyed":
            return orphan(f"session {each.key} is destroyed", "would be deleted")
        would = "would be ended, its files are kept" if each.kind == "session" else "kept: an empty log proves nothing"
        return orphan(f"the log knows no session {each.key}", would)
    if each.spare and each.kind == "session" and each.state != "running":
        return orphan("is left of a warm pool", "would be removed")
    if each.spare and each.kind == "workspace":
        held = any(other is not each and (other.files == each.name or other.spare == each.spare) for other in found)
        would = "would be removed if it is empty, else kept: nobody knows whose it is"
        return None if held else orphan("is of a spare or a session that is gone", would)
    if each.kind == "hand":
        return orphan("is left of a create that was cut short", "would be removed")
    sessions = any(other.org == each.org and (other.key is not None or other.spare) for other in found)
    if each.kind == "org" and not sessions:
        return orphan(f"org {each.org} has no session", "would be removed")
    if each.kind == "cache" and not sessions and each.org not in busy:
        return orphan(f"org {each.org} has no session", CACHE_STAYS)
    return None


def lines(found: Sequence[Orphan], nothing: str = "everything that the engine has belongs to a session") -> list[str]:
    from sandreel_core.cli.text import table

    if not found:
        return [nothing]
    rows: list[Any] = [("OBJECT", "NAME", "WHAT", "WHAT BECOMES OF IT")]
    return table([*rows, *((each.sort, each.name, each.found, each.would) for each in found)])
