"""What a program said and is not in its turn's log yet: bounded, in its order, and as much of it at once as has gathered.

While an append is under way the next events gather, so that a program which says little waits for nobody, and one that says much
waits for the disk and not for the round trip.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

from sandreel_bridge.journal import Journal, Sealed
from sandreel_core.agent import AgentItem
from sandreel_core.contract.agent import AgentEvent
from sandreel_core.contract.turn import TurnEvent
from sandreel_core.turn import Turn, fold

# Together 10 ms of an idle machine's disk, and 100 of a busy one's; a batch of the server holds 1000.
BATCH_EVENTS, BATCH_BYTES = 256, 1024 * 1024
# A batch has a directory of the server's own, with files that are synced: 6 ms, and an event by itself takes 1. So few go one by one.
FEW_EVENTS = 5
# What may gather: as much again is read and mapped while a batch is under way.
MAX_EVENTS, MAX_BYTES = 2 * BATCH_EVENTS, 4 * 1024 * 1024
# A command about the turn is answered on the same subject, by whoever has read it to its end and appends next. So that somebody can,
# a stream of appends pauses between two, once there were so many without a pause: for half of what the last one took, since whoever
# reads and appends has the same slow machine, and within these bounds.
IN_A_ROW, PAUSE_S, LONGEST_PAUSE_S = 8, 0.02, 0.05


class Backlog:
    """Of one attempt. `run` it beside whoever puts something in.

    heard       called with every agent event and the turn before it, once, before it is appended; what it returns is said with it, in
                front of it, so that whoever takes the turn over finds both or neither
    progressed  called with the number of agent events that were appended
    """

    def __init__(
        self,
        journal: Journal,
        *,
        heard: Callable[[Turn, AgentItem], Sequence[TurnEvent]] = lambda turn, item: (),
        progressed: Callable[[int], None] = lambda events: None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._journal = journal
        self._heard = heard
        self._progressed = progressed
        self._now = now
        self._waiting: deque[Sealed] = deque()
        self._bytes = 0
        self._under_way = 0
        self._changed = asyncio.Condition()

    async def put(self, event: TurnEvent) -> None:
        """Waits for as long as it is full: the program does so too, in the end."""
        sealed = self._journal.sealed(event)
        async with self._changed:
            await self._changed.wait_for(self._has_room)
            self._waiting.append(sealed)
            self._bytes += len(sealed.body)
            self._changed.notify_all()

    async def emptied(self) -> None:
        """All of it stands in the log."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._waiting and not self._under_way)

    async def run(self) -> None:
        """For ever. Raises Conflict when the turn is not ours any more."""
        in_a_row, took_s = 0, 0.0
        while True:
            in_a_row = in_a_row + 1 if self._waiting else 0
            if in_a_row >= IN_A_ROW:
                await asyncio.sleep(min(max(PAUSE_S, took_s / 2), LONGEST_PAUSE_S))
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._waiting))
                batch = self._next()
                self._changed.notify_all()
            began = self._now()
            await self._append(batch)
            took_s = self._now() - began
            async with self._changed:
                self._under_way = 0
                self._changed.notify_all()

    def _has_room(self) -> bool:
        return not self._waiting or (len(self._waiting) < MAX_EVENTS and self._bytes < MAX_BYTES)

    def _next(self) -> list[Sealed]:
        most = BATCH_EVENTS if len(self._waiting) > FEW_EVENTS else 1
        batch, size = [self._waiting.popleft()], 0
        while self._waiting and len(batch) < most:
            size += len(batch[-1].body)
            if size + len(self._waiting[0].body) > BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
        self._bytes -= sum(len(each.body) for each in batch)
        self._under_way = len(batch)
        return batch

    async def _append(self, batch: list[Sealed]) -> None:
        turn, events, said = self._journal.turn, list[Sealed](), 0
        for each in batch:
            shown: Sequence[TurnEvent] = ()
            if isinstance(data := each.envelope.data, AgentEvent):
                said += 1
                shown = self._heard(turn, data)
            for event in (*map(self._journal.sealed, shown), each):
                turn = fold(turn, event.envelope)
                events.append(event)
        await self._journal.insist_all(events)
        self._progressed(said)
