"""Which bridges are alive: each says so twice a second to whoever listens, and one that is silent for long is dead."""

from __future__ import annotations

import asyncio

from sandreel_core.bus.port import Bus
from sandreel_core.errors import SandreelError

BEAT_S = 0.5
# Of our own: 2.5 s, with which and a restart's second a turn is taken up within 5 s. A bridge that a busy machine has kept waiting is not dead;
# and where that is us, our own beats wait too, so that silence is not counted while we could not hear.
DEAD_AFTER_BEATS = 5
BEAT = "beat.bridge"
# Bridges that are heard no more are forgotten, of so many.
_REMEMBERED = 1024


class Beats:
    """Silence counts in beats of our own, since we began to listen, and again after each time that the bus was away."""

    def __init__(self, bus: Bus, source: str) -> None:
        self._bus = bus
        self._source = source
        self._beats = 0
        self._listens_since = 0
        self._heard: dict[str, int] = {}

    def hear(self, subject: str, body: bytes) -> None:
        """A beat: its body is the `source` of the bridge."""
        self._heard[body.decode(errors="replace")[:1024]] = self._beats

    def is_dead(self, source: str) -> bool:
        silent_since = max(self._heard.get(source, 0), self._listens_since)
        return source != self._source and self._beats - silent_since > DEAD_AFTER_BEATS

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            await self.beat()
            await asyncio.sleep(BEAT_S)

    async def beat(self) -> None:
        self._beats += 1
        try:
            await self._bus.publish(f"{BEAT}.{self._source.rpartition('/')[2]}", self._source.encode())
        except SandreelError:
            self._listens_since = self._beats
        if not self._bus.connected:
            self._listens_since = self._beats
        if len(self._heard) > _REMEMBERED:
            self._heard = {source: at for source, at in self._heard.items() if not self.is_dead(source)}
