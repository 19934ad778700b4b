"""runnerd as a whole, in this process, over the memory twin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sandreel_core.bus.memory import MemoryBus, MemoryServer
from sandreel_core.contract import session as s
from sandreel_core.contract.boot import BootSettings
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.log import Log
from sandreel_runnerd.children import Children
from sandreel_runnerd.daemon import Daemon
from tests.support.desk import Desk
from tests.support.mark import OURS


class Boot:
    """A daemon that runs, its desk, and the memory server between them."""

    def __init__(self, daemon: Daemon, desk: Desk, server: MemoryServer, bus: MemoryBus, workspace: Path) -> None:
        self.daemon = daemon
        self.desk = desk
        self.server = server
        self.bus = bus
        self.workspace = workspace
        self.task = asyncio.ensure_future(daemon.run())


@asynccontextmanager
async def booted(workspace: Path, **given: Any) -> AsyncIterator[Boot]:
    server = MemoryServer()
    desk_bus, bus = MemoryBus(server), MemoryBus(server)
    desk = Desk(desk_bus, SessionSubjects("acme", "s1"))
    desk.env, desk.limits = given.pop("env", {}), given.pop("limits", s.Limits())
    workspace.mkdir(exist_ok=True)
    boot = BootSettings(
        nats_urls=["memory"],
        org="acme",
        session="s1",
        boot_id="1-1",
        token="t",
        installation=OURS,
        workspace=str(workspace),
        spool_bytes=1024 * 1024,
        **({"heartbeat_s": 0.05} | given),
    )
    async with desk.open():
        running = Boot(Daemon(boot, bus, Children(), Log("runnerd"), fetch_private=True), desk, server, bus, workspace)
        try:
            async with asyncio.timeout(10):
                while not desk.beats and not running.task.done():
                    await asyncio.sleep(0.005)
            yield running
        finally:
            running.daemon.end()
            async with asyncio.timeout(25):
                await asyncio.wait({running.task})
            if running.task.exception() is not None:
                raise running.task.exception()  # type: ignore[misc]
