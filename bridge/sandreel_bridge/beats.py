"""Which bridges are alive: each says so twice a second to whoever listens, and one that is silent for long is dead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from sandreel_core.bus.port import Bus
from sandreel_core.errors import SandreelError

BEAT_S = 0.5
# Five beats: a bridge that a busy machine has kept waiting is not dead. With a restart's second it stays below 5 s.
DEAD_AFTER_S = 2.5
# A bridge that has not come to beat for so long was halted, or is kept waiting: it says of nobody that they are dead.
AWAY_S = 1.25
BEAT = "beat.bridge"


class Beats:
    """Silence counts from when we began to listen, and again after each time that we were away ourselves."""

    def __init__(self, bus: Bus, source: str, *, now: Callable[[], float] = monotonic) -> None:
        self._bus = bus
        self._source = source
        self._now = now
        self._listens_since = self._ticked_at = now()
        self._heard: dict[str, float] = {}

    def hear(self, subject: str, body: bytes) -> None:
        """A beat: its body is the `source` of the bridge."""
        self._heard[body.decode(errors="replace")[:1024]] = self._now()

    def is_dead(self, source: str) -> bool:
        moment = self._now()
        if source == self._source or moment - self._ticked_at > AWAY_S:
            return False  # it is us who were halted, and their beats wait to be heard
        return moment - max(self._heard.get(source, 0.0), self._listens_since) > DEAD_AFTER_S

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            moment = self._now()
            if not self._bus.connected or moment - self._ticked_at > AWAY_S:
                self._listens_since = moment  # we may have missed the others' beats
            self._ticked_at = moment
            try:
                await self._bus.publish(f"{BEAT}.{self._source.rpartition('/')[2]}", self._source.encode())
            except SandreelError:
                self._listens_since = self._now()
            await asyncio.sleep(BEAT_S)
            if len(self._heard) > 1024:
                self._heard = {source: at for source, at in self._heard.items() if self._now() - at < 60}
