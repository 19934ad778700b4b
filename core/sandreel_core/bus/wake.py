"""How one task tells any number of others that something has changed."""

from __future__ import annotations

import asyncio


class Signal:
    """Wakes everybody who waits now. Check, then wait, with nothing awaited in between."""

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def fire(self) -> None:
        if not self._waiters:
            return
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, timeout_s: float | None = None) -> None:
        """Returns after `timeout_s` in any case."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            if timeout_s is None:
                await waiter
            else:
                await asyncio.wait((waiter,), timeout=timeout_s)
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
