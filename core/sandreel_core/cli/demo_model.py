"""A stand-in of a model's API for the demo, in a process of its own: a demo needs no key, and spends nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sandreel_core.errors import NotFound, SandreelError, Unavailable
from sandreel_core.images import Kind, image, source_tree

if TYPE_CHECKING:
    from sandreel_core.spawner.docker import Engine

# The smaller of the two with agents first: it is what a newcomer has built.
_WITH_AGENTS: tuple[Kind, ...] = ("session-agents", "session")
_STARTED_WITHIN_S = 15.0
# Between two words of what it says: somebody is to read them.
_WORD_EVERY_S = "0.025"
KEY = "a-key-of-nobody"  # what the stand-in is paid with


@dataclass(frozen=True, slots=True)
class Model:
    """`settings` of a stack whose gateway takes it for the provider, and whose turns run in the image with agents; `lacks`: why there is
    none here, as a sentence's second half."""

    settings: Mapping[str, str]
    lacks: str | None = None


@dataclass(frozen=True, slots=True)
class _Room:
    """What a turn in the demo needs, and is here. `host`: this machine's address in the engine's own network."""

    tree: Path
    host: str
    agents: str


async def _room(backend: str) -> _Room:
    """Raises Unavailable."""
    from sandreel_core.settings import load
    from sandreel_core.spawner.docker import Engine
    from sandreel_core.spawner.docker_settings import DockerSettings

    tree = source_tree()
    if tree is None or not (tree / "tests" / "support" / "model_api").is_dir():
        raise Unavailable("the stand-in of a model that it would ask is part of the source tree alone")
    if backend != "docker":
        raise Unavailable("that takes containers, and the images that `make image-agents` builds")
    async with Engine.open(load(DockerSettings).host) as engine:
        agents = [name for kind in _WITH_AGENTS if await _has(engine, name := await asyncio.to_thread(image, kind))]
        if not agents or not await _has(engine, await asyncio.to_thread(image, "roles")):
            raise Unavailable("`make image-agents` builds the images for that")
        try:
            found = (await engine.network("bridge"))["IPAM"]["Config"]
            host = next(str(each["Gateway"]) for each in found if "." in str(each.get("Gateway", "")))
        except (SandreelError, KeyError, TypeError, StopIteration):
            raise Unavailable("the engine's network `bridge` is not as it usually is") from None
    return _Room(tree, host, agents[0])


async def _has(engine: Engine, name: str) -> bool:
    try:
        await engine.image(name)
    except NotFound:
        return False
    return True


@asynccontextmanager
async def standing_in(backend: str, complaints: Path) -> AsyncGenerator[Model, None]:
    """While it is open. `complaints`: where to put what it says on stderr. One that cannot be had is none, and says why."""
    async with AsyncExitStack() as stack:
        try:
            model = await stack.enter_async_context(_running(await _room(backend), complaints))
        except Unavailable as error:
            model = Model({}, lacks=str(error))
        yield model


@asynccontextmanager
async def _running(room: _Room, complaints: Path) -> AsyncGenerator[Model, None]:
    """Raises Unavailable."""
    words = ("-P", "-m", "tests.support.model_api", "--host", room.host, "--every-s", _WORD_EVERY_S)
    with complaints.open("wb") as errors:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, *words),
            cwd=room.tree,
            env={"PYTHONPATH": str(room.tree)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    reading: asyncio.Task[None] | None = None
    try:
        url = await _address(child)
        reading = asyncio.create_task(_pass_over(child))
        settings = {"SANDREEL_GATEWAY_ANTHROPIC_API_KEY": KEY, "SANDREEL_GATEWAY_ANTHROPIC_URL": url}
        yield Model(settings | {"SANDREEL_DOCKER_AGENT_IMAGE": room.agents})
    finally:
        if reading is not None:
            reading.cancel()
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def _address(child: asyncio.subprocess.Process) -> str:
    """The first line that it prints."""
    try:
        async with asyncio.timeout(_STARTED_WITHIN_S):
            said = await child.stdout.readline() if child.stdout is not None else b""
    except TimeoutError:
        said = b""
    if not said.startswith(b"http://"):
        raise Unavailable("the stand-in of a model does not start")
    return said.decode().strip()


async def _pass_over(child: asyncio.subprocess.Process) -> None:
    """What it tells of each request; unread, it would wait at some point."""
    while child.stdout is not None and await child.stdout.read(65536):
        pass
