"""Backends under test: how each is opened, and how a test reaches what it made."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.contract.boot import BootSettings
from sandreel_core.contract.session import Limits
from sandreel_core.errors import Unavailable
from sandreel_core.spawner import bubble, docker_plan
from sandreel_core.spawner.backend import Backend, BootSpec, Key, Sandbox
from sandreel_core.spawner.docker_backend import DockerBackend
from sandreel_core.spawner.process import ProcessBackend
from tests.support import engine
from tests.support.mark import OURS

STANDIN = Path(__file__).with_name("standin.py")
KEY = Key("acme", "one")


@dataclass
class Rig:
    """A backend, and how a test reaches what it made.

    again       a second one on the same data
    workspace   where a session's files are on this machine
    kill        SIGKILL for runnerd, from outside
    refusing    from now on, starting what was made fails
    left        everything that there is of the installation
    remembers   whether one that did not start a boot learns how it ended
    """

    backend: Backend
    again: Callable[[], AbstractAsyncContextManager[Backend]]
    workspace: Callable[[Key], Path]
    data: Path
    kill: Callable[[Sandbox], Awaitable[None]]
    refusing: Callable[[pytest.MonkeyPatch], None]
    left: Callable[[], list[str]]
    remembers: bool


def interpreter(boxed: bool) -> str:
    """Plain sessions of root run as somebody who may not be able to enter this interpreter's directory."""
    if not boxed and os.geteuid() == 0 and bubble.closed_to(Path(os.path.realpath(sys.executable)), 65534, 65534):
        return "/usr/bin/python3"
    return sys.executable


@asynccontextmanager
async def process(data: Path, box: bool) -> AsyncIterator[Rig]:
    program = (interpreter(box), "-I", str(STANDIN))

    def again() -> AbstractAsyncContextManager[Backend]:
        return ProcessBackend.open(data, node="here", program=program, box=box)

    async def kill(sandbox: Sandbox) -> None:
        os.kill(int(sandbox.ref.removeprefix("pid:")), signal.SIGKILL)

    def refuse(*_: object) -> None:
        raise Unavailable("no more processes")

    with pytest.MonkeyPatch.context() as patch:
        if program[0] != sys.executable:
            patch.setattr(bubble, "needs", lambda given: [Path(part) for part in given if part.startswith("/")])
        async with again() as backend:
            yield Rig(
                backend,
                again,
                workspace=lambda key: data / "sessions" / key.org / key.session / "workspace",
                data=data,
                kill=kill,
                refusing=lambda patch: patch.setattr(backend, "_start", refuse),
                left=lambda: [str(path) for path in data.rglob("*") if path.is_file()],
                remembers=False,
            )
            for sandbox in await backend.list():
                await backend.stop(sandbox.key, sandbox.boot_id, grace_s=0)


@asynccontextmanager
async def docker(data: Path, **given: Any) -> AsyncIterator[Rig]:
    """`given`: for `DockerBackend.open`."""
    image = await asyncio.to_thread(engine.standin_image)
    terms = docker_plan.Terms(installation=OURS, node="here", image=image)

    options: dict[str, Any] = {"locks": data, "pool": engine.POOL} | given

    def again() -> AbstractAsyncContextManager[Backend]:
        return DockerBackend.open(terms, **options)

    async def kill(sandbox: Sandbox) -> None:
        await asyncio.to_thread(engine.docker, "kill", sandbox.ref)

    async def refuse(*_: object) -> None:
        raise Unavailable("no more containers")

    def refusing(patch: pytest.MonkeyPatch) -> None:
        patch.setattr("sandreel_core.spawner.docker.Engine.start", refuse)

    try:
        async with again() as backend:
            yield Rig(
                backend,
                again,
                workspace=lambda key: engine.volume_path(docker_plan.volume_name(OURS, key)),
                data=data,
                kill=kill,
                refusing=refusing,
                left=lambda: engine.objects(OURS),
                remembers=True,
            )
    finally:
        await asyncio.to_thread(engine.sweep, OURS)


def spec(key: Key = KEY, *, incarnation: int = 1, boot: int = 1, fresh: bool | None = None, **changes: Any) -> BootSpec:
    boot_id = f"{incarnation}-{boot}"
    settings = BootSettings(
        nats_urls=["nats://127.0.0.1:1"], org=key.org, session=key.session, boot_id=boot_id, token="secret-token", installation=OURS
    )  # fmt: skip
    values: dict[str, Any] = {"profile": "default", "limits": Limits(), "image": None, "settings": settings}
    fresh = boot == 1 if fresh is None else fresh
    return BootSpec(key=key, incarnation=incarnation, boot=boot, fresh=fresh, **(values | changes))


async def seen(rig: Rig, key: Key = KEY) -> dict[str, Any]:
    """What the stand-in runnerd wrote down when it was up."""
    return await seen_in(rig.workspace(key))


async def seen_in(workspace: Path) -> dict[str, Any]:
    path = workspace / "seen.json"
    async with asyncio.timeout(20):
        while not path.exists():
            await asyncio.sleep(0.01)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


async def status(rig: Rig, key: Key = KEY) -> str:
    found = await rig.backend.inspect(key)
    return "absent" if found is None else found.status
