"""How long a provider may say nothing.

A timer that is set anew at each piece costs a tenth of a piece's way through the gateway; this one looks when it is due whether
anything has come meanwhile.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Silence:
    """`async with`: raises TimeoutError when for `within_s` nothing was heard. It counts from its beginning, and anew from every
    `listen`; from `rest` to `listen` it does not count, while the sandbox takes what has come."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._loop = asyncio.get_running_loop()
        self._limit = asyncio.timeout(None)
        self._since: float | None = self._loop.time()
        self._timer = self._loop.call_later(within_s, self._look)

    def rest(self) -> None:
        """Something has come."""
        self._since = None

    def listen(self) -> None:
        """The next is waited for."""
        self._since = self._loop.time()

    def _look(self) -> None:
        now = self._loop.time()
        due = self._within_s + (now if self._since is None else self._since)
        if due <= now:
            self._limit.reschedule(now)
        else:
            self._timer = self._loop.call_at(due, self._look)

    async def __aenter__(self) -> Silence:
        await self._limit.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._limit.__aexit__(kind, error, trace)
