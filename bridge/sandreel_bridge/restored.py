"""Turns that go on by the log and stand in no index: those that were asked for while a backup was being made, of which it has the log
and not the document. Nobody would ever drive them.

Every turn is looked at for that, which an installation of many takes minutes for; so only in a log that this was not done for before:
a restored one has another epoch.
"""

from __future__ import annotations

import asyncio

from sandreel_bridge.index import Index
from sandreel_bridge.journal import Name
from sandreel_bridge.line import conversation_of
from sandreel_core.bus.port import Bus
from sandreel_core.client.turn_reading import data_of, first_of, newest_of
from sandreel_core.contract.subjects import SessionSubjects, parse_event_subject, reel
from sandreel_core.contract.turn import PlanApproved, PlanRejected, TurnFinished, TurnRequested
from sandreel_core.log import Log

_AT_ONCE = 16  # each costs two or three questions


async def reopen(bus: Bus, index: Index, partitions: int) -> None:
    """Once for every log. Raises Unavailable: to be done again, which changes nothing that was done."""
    for partition in range(partitions):
        epoch = (await bus.state(reel(partition))).epoch
        if await index.epoch(partition) == epoch:
            continue
        subjects = list(await bus.subjects(reel(partition), f"evt.{partition}.*.*.turn.*"))
        for begin in range(0, len(subjects), _AT_ONCE):
            some = subjects[begin : begin + _AT_ONCE]
            await asyncio.gather(*(_look(bus, index, each, partitions) for each in some))
        await index.compared(partition, epoch)


async def _look(bus: Bus, index: Index, subject: str, partitions: int) -> None:
    where = parse_event_subject(subject)
    name, stream = Name(where.org, where.session, where.key), reel(where.partition)
    first, newest = await first_of(bus, stream, subject), await newest_of(bus, stream, subject)
    request, last = (data_of(first) if first is not None else None), (data_of(newest) if newest is not None else None)
    if not isinstance(request, TurnRequested) or isinstance(last, TurnFinished | PlanRejected):
        return
    if isinstance(last, PlanApproved):
        following = SessionSubjects(name.org, name.session, partitions).event("turn", last.next_turn)
        if await first_of(bus, stream, following) is not None:
            return
    if not await index.is_open(name):
        await index.open(name, conversation_of(name, request))
        Log("bridge.restored").warning("a turn that nobody drove is taken up", turn=str(name))
