"""Running one exec in a test: a recorder in memory, a workspace, a time limit."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sandreel_core.contract import exec as c
from sandreel_runnerd.children import Children
from sandreel_runnerd.host import Host
from sandreel_runnerd.programs import Programs
from sandreel_runnerd.running import RunningExec
from tests.support.mark import OURS
from tests.support.recorder import MemoryRecorder

BOOT = f"{OURS}/org/session/1-1"


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-u", "-c", code]


def bash(script: str) -> list[str]:
    """Without the login profile of `shell`, which may take long."""
    return ["bash", "-c", script]


class Run:
    """One exec under way."""

    def __init__(self, running: RunningExec, recorder: MemoryRecorder) -> None:
        self.running = running
        self.attended: Callable[[], bool] = lambda: False
        self.recorder = recorder
        self.task = asyncio.create_task(running.run())

    async def until_started(self) -> c.Started:
        await self.recorder.until(lambda r: bool(r.of(c.Started)))
        return self.recorder.of(c.Started)[0]

    async def until_output(self, text: bytes) -> None:
        await self.recorder.until(lambda r: text in r.output())

    async def end(self, timeout_s: float = 15) -> c.Exited:
        async with asyncio.timeout(timeout_s):
            exited = await asyncio.shield(self.task)
        events = self.recorder.events
        assert events[-1] is exited or events[-1] == exited
        assert len(self.recorder.of(c.Exited)) == 1
        return exited


@asynccontextmanager
async def running(
    workspace: Path, *, store: dict[str, str] | None = None, programs: Programs | None = None, **start: Any
) -> AsyncIterator[Run]:
    """`start` are the fields of exec.start."""
    exec_id = start.pop("exec", f"x{os.urandom(4).hex()}")
    base = dict(os.environ)
    host = Host(workspace=str(workspace), boot_marker=BOOT, base_env=base, children=Children(), programs=programs)
    recorder = MemoryRecorder()
    runs: list[Run] = []
    exec_ = RunningExec(
        c.Start(exec=exec_id, **start),
        host=host,
        recorder=recorder,
        attended=lambda: runs[0].attended(),  # noqa: PLW0108 - there is none yet, and it may be changed
    )
    await exec_.prepare(store or {})
    run = Run(exec_, recorder)
    runs.append(run)
    try:
        yield run
    finally:
        recorder.open.set()
        if not run.task.done():
            run.task.cancel()
            await asyncio.wait([run.task])


async def ran(workspace: Path, **start: Any) -> tuple[c.Exited, MemoryRecorder]:
    """The whole exec."""
    async with running(workspace, **start) as run:
        return await run.end(), run.recorder
