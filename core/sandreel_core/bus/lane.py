"""One ordered subject of a pipeline: what its one owner puts, and what is under way."""

from __future__ import annotations

import asyncio
from typing import Protocol

from sandreel_core.bus.window import Window


class Shared(Protocol):
    """What a lane asks of its pipeline."""

    def has_room(self, window: Window) -> bool: ...

    def put(self, lane: Lane, body: bytes, n: int, keep: bool) -> None: ...

    def reconcile(self, lane: Lane, last_n: int, why: str) -> bool: ...

    async def changed(self) -> None: ...


class Lane:
    """The pipeline of one subject. Made by `Pipeline.lane`; one owner puts, in order."""

    def __init__(self, subject: str, window: Window, shared: Shared) -> None:
        self.subject = subject
        self.window = window
        self.queued = False
        self.failures = 0
        self.progress_at = 0.0
        self.retry: asyncio.TimerHandle | None = None
        self.tick: asyncio.TimerHandle | None = None
        self._shared = shared

    @property
    def next_n(self) -> int:
        """The ordinal that the next message gets."""
        return self.window.next_n

    @property
    def has_room(self) -> bool:
        return self._shared.has_room(self.window)

    @property
    def is_empty(self) -> bool:
        """Everything that was put is acknowledged."""
        return not self.window.entries

    def put(self, body: bytes, n: int, *, keep: bool = False) -> None:
        """Take one message, written as `n` (another number is put right). Check `has_room` first.

        keep  sent until it is stored, whatever the server says: for the event that ends the subject
        """
        self._shared.put(self, body, n, keep)

    async def drained(self) -> None:
        """Wait until everything that was put is acknowledged."""
        while self.window.entries:
            await self._shared.changed()

    def reconcile(self, last_n: int, why: str) -> bool:
        """While greeting: the log holds this subject up to `last_n` without a hole. See `Window.reconcile`."""
        return self._shared.reconcile(self, last_n, why)
