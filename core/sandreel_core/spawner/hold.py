"""At 90 % of a stream's bytes, runnerds are told to hold output, so that lifecycle events still fit (design §3)."""

from __future__ import annotations

import asyncio

import msgspec

from sandreel_core.bus.port import Bus, StreamState
from sandreel_core.contract.runnerd import Hold
from sandreel_core.contract.subjects import reel
from sandreel_core.errors import SandreelError
from sandreel_core.log import Log
from sandreel_core.spawner.journal import Journal
from sandreel_core.spawner.sessions import Sessions

NEARLY_FULL = 0.9
TICK_S = 5.0
MAX_AT_ONCE = 16
REQUEST_TIMEOUT_S = 2.0


class Holding:
    def __init__(self, bus: Bus, journal: Journal, sessions: Sessions, partitions: int) -> None:
        self._bus = bus
        self._journal = journal
        self._sessions = sessions
        self._partitions = partitions
        self._full: dict[int, bool] = {}
        self._states: dict[int, StreamState] = {}
        self._log = Log("spawner.hold")

    def is_full(self, partition: int) -> bool:
        """Whether the partition's stream was nearly full when we last looked."""
        return self._full.get(partition, False)

    def states(self) -> list[StreamState]:
        """What every partition's stream was like when we last looked."""
        return list(self._states.values())

    async def tick(self) -> None:
        """Look at every stream; tell whom it concerns. A hold lapses after 60 s, so it is said again each time.

        After the first look the runnerds hear of room as well: the spawner before this one may have told them to hold.
        """
        room = asyncio.Semaphore(MAX_AT_ONCE)
        for partition in range(self._partitions):
            state = self._states[partition] = await self._bus.state(reel(partition))
            full = state.max_bytes > 0 and state.bytes >= NEARLY_FULL * state.max_bytes
            before = self._full.get(partition)
            if full != bool(before):
                self._log.warning("a stream is nearly full" if full else "a stream has room again", stream=state.name)
            elif not full and before is not None:
                continue
            self._full[partition] = full
            async with asyncio.TaskGroup() as group:
                for key in self._sessions.running():
                    subjects = self._journal.subjects(key)
                    if subjects.partition == partition:
                        group.create_task(self._say(subjects.request("runnerd", "hold"), full, room))

    async def _say(self, subject: str, hold: bool, room: asyncio.Semaphore) -> None:
        async with room:
            try:
                await self._bus.request(subject, msgspec.json.encode(Hold(hold=hold)), timeout_s=REQUEST_TIMEOUT_S)
            except SandreelError as error:
                self._log.debug("a runnerd did not hold", subject=subject, problem=str(error))
