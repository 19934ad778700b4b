"""What a client remembers of each partition's stream: its epoch, and a sequence that it has reached already."""

from __future__ import annotations

from sandreel_core.bus.port import Bus, StreamState
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.subjects import reel


class Reels:
    """Epochs are asked for once a connection. Of a stream that is restored meanwhile a cursor may still be given the epoch
    of before: it is then refused, and not silently wrong.

    `floor` is some sequence that the stream has reached: what is sent later is answered behind it. A stale
    floor is never wrong, because a log only grows; it costs reading what the answer's subjects got since, which is
    little unless one of them is that of an exec that prints.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._generation = -1
        self._epochs: dict[int, str] = {}
        self._floors: dict[int, int] = {}

    async def epoch(self, partition: int) -> str:
        """Raises NotFound when the installation has no such stream, Unavailable."""
        self._renew()
        if partition not in self._epochs:
            await self._ask(partition)
        return self._epochs[partition]

    async def floor(self, partition: int, *, fresh: bool = False) -> int:
        """`fresh`: as of now, which is one question to the server. Raises NotFound when the installation has no such
        stream, Unavailable."""
        self._renew()
        if fresh or partition not in self._floors:
            await self._ask(partition)
        return self._floors[partition]

    async def cursor(self, partition: int, sequence: int) -> Cursor:
        return Cursor(await self.epoch(partition), partition, sequence)

    def reached(self, partition: int, sequence: int) -> None:
        """A message with this sequence was read on the present connection."""
        if partition in self._floors:
            self._floors[partition] = max(self._floors[partition], sequence)

    def _renew(self) -> None:
        if self._generation != self._bus.generation:
            self._generation = self._bus.generation
            self._epochs.clear()
            self._floors.clear()

    async def _ask(self, partition: int) -> None:
        state: StreamState = await self._bus.state(reel(partition))
        self._epochs[partition] = state.epoch
        self._floors[partition] = state.last_sequence
