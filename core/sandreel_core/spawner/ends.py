"""Notices ended processes at once: one pidfd a boot, in the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator

from sandreel_core.spawner import census
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.workspace import Boot


class Ends:
    """Watches at most one boot a session. `close` lets go of all of them."""

    def __init__(self) -> None:
        self._watched: dict[Key, tuple[str, int]] = {}
        self._ended: dict[Key, None] = {}
        self._news = asyncio.Event()

    def add(self, boot: Boot) -> None:
        """Watch a started boot, instead of an earlier one of its session."""
        known = self._watched.get(boot.key)
        if boot.state != "started" or (known is not None and known[0] == boot.boot_id):
            return
        self.drop(boot.key)
        try:
            descriptor = os.pidfd_open(boot.pid)
        except ProcessLookupError:
            return
        if census.start_time(boot.pid) != boot.started:
            os.close(descriptor)
            return
        self._watched[boot.key] = (boot.boot_id, descriptor)
        asyncio.get_running_loop().add_reader(descriptor, self._end, boot.key)

    def _end(self, key: Key) -> None:
        self.drop(key)
        self._ended[key] = None
        self._news.set()

    def drop(self, key: Key) -> None:
        found = self._watched.pop(key, None)
        if found is not None:
            asyncio.get_running_loop().remove_reader(found[1])
            os.close(found[1])

    def close(self) -> None:
        for key in list(self._watched):
            self.drop(key)

    async def watch(self) -> AsyncGenerator[Key, None]:
        """Sessions whose boot has ended, for ever. One reader at a time."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._ended:
                key = next(iter(self._ended))
                del self._ended[key]
                yield key
