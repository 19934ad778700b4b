"""Where the stack's sessions run when nobody said so: in containers if everything for that is here, else as processes."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from sandreel_core.embedded.place import Place
from sandreel_core.embedded.wiring import StackSettings, Wiring
from sandreel_core.errors import Misconfigured, NotFound, SandreelError, Unavailable
from sandreel_core.images import image
from sandreel_core.settings import given
from sandreel_core.spawner.workspace import folders

_ASK_WITHIN_S = 5.0
_SDK = "its SDK is not installed: pip install 'sandreel[docker]'"


class Choice(NamedTuple):
    """`why` is a line for an operator."""

    backend: Literal["process", "docker"]
    why: str


async def choose(environ: Mapping[str, str], data: Path, *, asked: str | None = None) -> Choice:
    """By what was asked for, else by the settings, else by what is here.

    Raises Misconfigured when containers were asked for and something for them is missing.
    """
    wiring = Wiring.read(environ)
    if asked is None and "backend" in given(StackSettings, environ=environ, path=wiring.path):
        asked = wiring.settings.backend
    if asked == "process":
        return Choice("process", "sessions are processes of this machine, as it was asked for")
    if asked is None and await asyncio.to_thread(_has_processes, data):
        return Choice("process", "the sessions of this data are processes (--backend docker: new ones are containers)")
    lacks = await missing(wiring)
    if lacks is None:
        return Choice("docker", "sessions are containers" + (", unfenced" if wiring.docker.unfenced else ""))
    if asked == "docker":
        raise Misconfigured(f"sessions cannot be containers: {lacks}")
    return Choice("process", f"sessions are processes of this machine: {lacks}")


def last(data: Path) -> str:
    """Where the sessions ran when the stack was last up on this data. Blocking."""
    try:
        tables = tomllib.loads(Place(data).roles.read_text())
    except (OSError, ValueError):  # it never was, or the stack will say what is wrong with it
        return "process"
    return "docker" if tables.get("spawner", {}).get("backend") == "docker" else "process"


async def missing(wiring: Wiring) -> str | None:
    """What sessions in containers lack here, and how to mend it; None: nothing."""
    try:
        from sandreel_core.spawner.docker import Engine  # noqa: PLC0415 - it loads the engine's SDK
    except ImportError:
        return _SDK
    docker = wiring.docker
    wanted = [docker.image or await asyncio.to_thread(image, "session-slim")]
    if wiring.embeds_nats:
        wanted.append(docker.nats_image or wiring.environ.get("NATS_IMAGE") or await asyncio.to_thread(image, "nats"))
    if not docker.unfenced:
        wanted.append(docker.fence_image or await asyncio.to_thread(image, "fence"))
    async with Engine.open(docker.host, timeout_s=_ASK_WITHIN_S) as engine:
        for name in wanted:
            try:
                await engine.image(str(name))
            except NotFound:
                mend = "docker pull, or build it" if name == docker.image else "make image-slim"
                return f"image {name} is not here: {mend}"
            except Unavailable as error:
                return f"{error}: start it (a user needs the right to its socket)"
            except SandreelError as error:
                return str(error)
    return None


def _has_processes(data: Path) -> bool:
    try:
        return next(iter(folders(Place(data).state)), None) is not None
    except OSError:  # it cannot be read, which the stack says better
        return False
