"""The processes of boots on this machine, and how they are ended: asked first, then killed until nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from contextlib import suppress

from msgspec.structs import replace

from sandreel_core.contract.boot import BOOT_MARKER
from sandreel_core.errors import Unavailable
from sandreel_core.spawner import census
from sandreel_core.spawner.workspace import Boot, Folder

_DEATH_TIMEOUT_S = 10.0
_SCAN_PAUSE_S = 0.05


async def terminate(boot: Boot, grace_s: float) -> None:
    """SIGTERM, and wait for the end of runnerd itself."""
    try:
        descriptor = os.pidfd_open(boot.pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        if not census.send(boot.pid, boot.started, signal.SIGTERM):
            return
        loop.add_reader(descriptor, ended.set)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


class Children:
    """Those that this process started: only of them it learns the exit code."""

    def __init__(self) -> None:
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def __len__(self) -> int:
        return len(self._children)

    def add(self, child: subprocess.Popen[bytes]) -> None:
        self._children[child.pid] = child

    def leave(self) -> None:
        """They live on without us: Popen need not warn that nobody waits for them."""
        for child in self._children.values():
            if child.poll() is None:
                child.returncode = 0
        self._children.clear()

    def forget(self, pid: int) -> None:
        """Of a child that is about to end, or has."""
        if self._reap(pid) is not None:
            del self._children[pid]

    def bury(self, folder: Folder, boot: Boot) -> Boot:
        """Kill what is left and write down the death, once two scans have found nothing. Holds the lock.

        Raises Unavailable when something is still there after 10 s.
        """
        other_kernel = boot.kernel != census.kernel_boot()
        limit = time.monotonic() + _DEATH_TIMEOUT_S
        clean = 0
        if census.start_time(boot.pid) != boot.started:
            # Before bubblewrap itself, which is about to pass on the exit code, is killed as a leftover.
            self._reap(boot.outer)
        while not other_kernel and clean < 2:
            left = [(boot.pid, boot.started)] if boot.pid and census.start_time(boot.pid) == boot.started else []
            left += census.carriers(BOOT_MARKER, boot.marker)
            clean = 0 if left else clean + 1
            for pid, started in left:
                census.send(pid, started, signal.SIGKILL)
            if time.monotonic() > limit:
                raise Unavailable(f"{len(left)} processes of the session survive SIGKILL", retry_after_s=30)
            if left:
                time.sleep(_SCAN_PAUSE_S)
        code = self._reap(boot.outer)
        self._children.pop(boot.outer, None)
        cause = "node" if other_kernel else "killed" if code is not None and code > 128 else "exited"
        boot = replace(boot, state="dead", cause=cause, exit_code=code)
        folder.write(boot)
        return boot

    def _reap(self, pid: int) -> int | None:
        """The exit code as in a shell, where it was started by this process; also clears up its zombie."""
        child = self._children.get(pid)
        if child is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            code = child.wait(timeout=1)
            return 128 - code if code < 0 else code
        return None
