"""Locks between the spawners of one machine, which the kernel gives back when one of them dies.

There is a fixed number of them, so that sessions that come and go leave nothing behind: two that share one only wait
for each other.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from sandreel_core.errors import Unavailable

LOCK_TIMEOUT_S = 60.0  # above what the engine takes at worst to make one session
_STRIPES = 4096
_POLL_S = 0.01


class Locks:
    """Locks of one kind in one directory, which is made. Raises OSError when it cannot be."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @asynccontextmanager
    async def held(self, name: str) -> AsyncGenerator[None, None]:
        """Hold the lock of a name. Not to be taken again inside. Raises Unavailable after a minute."""
        stripe = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % _STRIPES
        descriptor = os.open(self._directory / f"{stripe:03x}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            limit = time.monotonic() + LOCK_TIMEOUT_S
            while not _take(descriptor):
                if time.monotonic() > limit:
                    raise Unavailable(f"another spawner holds the lock of {name}", retry_after_s=5)
                await asyncio.sleep(_POLL_S)
            yield
        finally:
            os.close(descriptor)


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
