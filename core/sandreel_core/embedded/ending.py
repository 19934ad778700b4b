"""Ending what runs on a data directory: its sessions, and what a stack that was killed has left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from sandreel_core.client import Client, ClientSettings, SessionInfo
from sandreel_core.contract.boot import BOOT_MARKER
from sandreel_core.contract.subjects import parse_event_subject, reel
from sandreel_core.embedded import pidfile
from sandreel_core.embedded.part import Status
from sandreel_core.embedded.place import Place, check_readable
from sandreel_core.embedded.postmaster import left_running
from sandreel_core.errors import SandreelError
from sandreel_core.session import ACTIVE
from sandreel_core.settings import load

# How many sessions are stopped at once.
_AT_ONCE = 16
_CONNECT_WITHIN_S = 5.0


async def stop_sessions(settings: Path, *, within_s: float, report: Callable[[Status], None]) -> None:
    """Stop every session that runs or is about to, as `session stop` does: execs end, workspaces stay.

    Those that have not stopped `within_s` go on. Raises Unavailable when the stack cannot be asked.
    """
    found = load(ClientSettings, environ={}, path=settings)
    async with Client.connect(found, actor="sandreel down", connect_timeout_s=_CONNECT_WITHIN_S) as client:
        running = [(info.org, info.session) for info in await _sessions(client) if info.phase in ACTIVE]
        if not running:
            return
        report(Status("sessions", "starting", None, f"stopping {len(running)}"))
        limit = asyncio.Semaphore(_AT_ONCE)

        async def stop(org: str, session: str) -> bool:
            async with limit:
                try:
                    await client.stop(org, session, timeout_s=within_s)
                except SandreelError:
                    return False
                return True

        tasks = [asyncio.ensure_future(stop(*names)) for names in running]
        try:
            await asyncio.wait(tasks, timeout=within_s)
        finally:
            stopped = sum(task.done() and not task.cancelled() and task.result() for task in tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        left = len(running) - stopped
        report(Status("sessions", "stopped", None, f"{stopped} stopped" + (f", {left} go on" if left else "")))


def left_over(data: Path) -> bool:
    """Whether parts of a stack that was killed still run on the directory, or sessions that it has left.

    Raises Misconfigured when the directory cannot be read.
    """
    check_readable(data)
    place = Place(data)
    files = [place.nats / "nats.pid", *data.glob("run/*.pid")]
    if any(pidfile.alive(file) is not None for file in files) or left_running(place.postgres / "cluster"):
        return True
    if not place.keys_file.exists():
        return False
    marker = f"{BOOT_MARKER}={place.keys().installation}/".encode()
    return any(marker in _environ(directory) for directory in Path("/proc").glob("[0-9]*"))


def _environ(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:  # gone, or somebody else's
        return b""


async def _sessions(client: Client) -> list[SessionInfo]:
    orgs = set()
    for partition in range(client.partitions):
        for subject in await client.bus.subjects(reel(partition), f"evt.{partition}.*.*.session"):
            orgs.add(parse_event_subject(subject).org)
    return [info for org in sorted(orgs) for info in await client.sessions(org)]
