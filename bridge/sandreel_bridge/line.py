"""Turns of one conversation run one after the other, in the order in which they were asked for.

They all go on from where the one before has ended, and a program that resumes a conversation twice at a time loses one half of it. The order
is that of their `turn.requested` in the log, which is the same for every bridge; which turns there are is asked of the index, where each stands before it is asked for.
"""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from sandreel_bridge.index import Index
from sandreel_bridge.journal import Journal, Name
from sandreel_core.bus.port import Bus
from sandreel_core.bus.wake import Signal
from sandreel_core.client.turn_reading import data_of, first_of, newest_of
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.contract.turn import PlanApproved, PlanRejected, TurnFinished, TurnRequested
from sandreel_core.errors import Refused
from sandreel_core.log import Log
from sandreel_core.turn_decision import MAX_QUEUED

# So often it is looked whether the turn in front has ended, where another bridge drives it: it costs a question.
LOOK_S = 0.5
# What follows from a turn (an approved plan, messages that were not read) is asked for in this name, and is not refused: each turn
# leads to two others at most.
ACTOR = "bridge"
_REMEMBERED = 1024


class Line:
    """Of one installation. `moved`: to be fired when a turn has ended here. Every method raises Unavailable."""

    def __init__(self, bus: Bus, index: Index, partitions: int) -> None:
        self._bus = bus
        self._index = index
        self._partitions = partitions
        self._joining: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()
        self._looked_at: dict[Name, tuple[int, bool]] = {}
        self.moved = Signal()
        self._log = Log("bridge.line")

    async def join(self, name: Name, request: TurnRequested, *, asked_by: str | None) -> Refused | None:
        """Before the turn is asked for in the log: write it into the index, unless `MAX_QUEUED` wait behind the one that runs. (Of
        several bridges each may let one in at the same moment.)"""
        where = (name.org, name.session, conversation_of(name, request))
        joining = self._joining.setdefault(where, asyncio.Lock())
        async with joining:
            others = [each for each in await self._index.unsettled_of(*where) if each != name]
            # Some of so many may have ended, and only not be settled.
            if len(others) > MAX_QUEUED and asked_by != ACTOR and len(await self._going_on(others)) > MAX_QUEUED:
                return Refused("QUEUE_FULL", f"{MAX_QUEUED} turns of the conversation wait already, which is the limit")
            await self._index.open(name, where[2])
        return None

    async def wait(self, journal: Journal) -> bool:
        """Until no turn is in front of it: True. False when something was said of it itself: it may not be wanted any more."""
        revision = journal.revision
        waits_for: Name | None = None
        while (ahead := await self._ahead(journal)) is not None:
            if ahead != waits_for:
                self._log.info("a turn waits for another one", turn=str(journal.name), ahead=ahead.turn)
                waits_for = ahead
            await self.moved.wait(LOOK_S)
            if journal.revision != revision:
                return False
        return True

    async def _ahead(self, journal: Journal) -> Name | None:
        """The last turn in front of it that has not ended."""
        name, request = journal.name, journal.turn.request
        if request is None:
            return None
        found = await self._index.unsettled_of(name.org, name.session, conversation_of(name, request))
        places = await self._going_on([each for each in found if each != name])
        ahead = {place: each for each, place in places.items() if 0 < place < journal.requested_at}
        return ahead[max(ahead)] if ahead else None

    async def _going_on(self, names: list[Name]) -> dict[Name, int]:
        """Those that have not ended, with the sequence at which they were asked for: 0 when that is about to be done."""
        places = await asyncio.gather(*(self._place(each) for each in names))
        return {each: place for each, place in zip(names, places, strict=True) if place is not None}

    async def _place(self, name: Name) -> int | None:
        subjects = SessionSubjects(name.org, name.session, self._partitions)
        stream, subject = subjects.stream, subjects.event("turn", name.turn)
        first, last = await first_of(self._bus, stream, subject), await self._bus.last(stream, subject)
        if first is None or last is None:
            return 0
        # Where a refusal is the newest, all of the turn is read to find what stands before it: once.
        looked_at = self._looked_at.pop(name, None)
        if looked_at is None or looked_at[0] != last.sequence:
            newest = await newest_of(self._bus, stream, subject)
            ended = newest is not None and isinstance(data_of(newest), TurnFinished | PlanApproved | PlanRejected)
            looked_at = (last.sequence, ended)
        self._looked_at[name] = looked_at
        while len(self._looked_at) > _REMEMBERED:
            del self._looked_at[next(iter(self._looked_at))]
        return None if looked_at[1] else first.sequence


def conversation_of(name: Name, request: TurnRequested) -> str:
    """The turn's conversation: a turn without one is one of its own."""
    return request.conversation_id or name.turn
