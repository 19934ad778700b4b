"""How one task tells any number of others that something has changed."""

from __future__ import annotations

import asyncio


class Signal:
    """Wakes everybody who waits now. Check, then wait, with nothing awaited in between."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def fire(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Returns after `timeout_s` in any case."""
        event = self._event
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return
