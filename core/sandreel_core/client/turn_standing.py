"""How a turn stands, from a few of its events: its newest one, and what stands not far before that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sandreel_core.bus.port import Bus, Stored
from sandreel_core.client.turn_reading import data_of, stage_of
from sandreel_core.contract import turn as t
from sandreel_core.contract.subjects import stream_of

# waiting: it was asked for and not begun, behind another turn of its conversation, or for its sandbox
TurnState: TypeAlias = Literal[
    "waiting",
    "preparing",
    "running",
    "interrupting",
    "success",
    "failed",
    "cancelled",
    "interrupted",
    "max_turns",
    "plan",
]
# Messages of the stream before the newest event of a turn among which it is looked for the end of one whose plan was decided upon, before
# all of it is read.
_LOOKS_BACK = (256, 4096, 65536)
# The same for an interrupt, behind which a program is gone within 20 s; no more is read for that of a turn that runs.
_INTERRUPT_BACK = 16384


@dataclass(frozen=True, slots=True)
class Standing:
    """`state` of a turn that has ended is its status; `ended_ns`: the server's time then."""

    state: TurnState
    ended: t.TurnFinished | None = None
    ended_ns: int | None = None
    decided: t.PlanApproved | t.PlanRejected | None = None


async def standing(bus: Bus, first: Stored, newest: Stored) -> Standing:
    """By its first event and the newest that answers no command in vain (`turn_reading.newest_of`). Raises Unavailable."""
    data = data_of(newest)
    match data:
        case t.TurnFinished(status="plan") | t.PlanApproved() | t.PlanRejected():
            return await _plan(bus, first, newest)
        case t.TurnFinished():
            return Standing(data.status, data, newest.time_ns)
        case t.SteerQueued():
            data = await stage_of(bus, first)
    state = _begun(data)
    if state == "running":
        begin = max(first.sequence, newest.sequence - _INTERRUPT_BACK)
        async for stored in _behind(bus, newest, begin):
            if t.TurnInterrupting.type.encode() in stored.body and isinstance(data_of(stored), t.TurnInterrupting):
                return Standing("interrupting")
    return Standing(state)


async def _plan(bus: Bus, first: Stored, newest: Stored) -> Standing:
    """Its end and the decision upon its plan: either may have come first, and both have come behind the plan."""
    for back in (*_LOOKS_BACK, newest.sequence):
        found, begin = Standing("plan"), max(first.sequence, newest.sequence - back)
        proposed = begin == first.sequence
        async for stored in _behind(bus, newest, begin):
            match data_of(stored):
                case t.PlanProposed():
                    proposed = True
                case t.TurnFinished() as ended:
                    found = Standing(ended.status, ended, stored.time_ns, found.decided)
                case t.PlanApproved() | t.PlanRejected() as decided:
                    found = Standing(found.state, found.ended, found.ended_ns, found.decided or decided)
        if proposed:
            break
    # Approved while its program was still ending.
    return found if found.ended is not None else Standing("running", decided=found.decided)


async def _behind(bus: Bus, newest: Stored, begin: int) -> AsyncIterator[Stored]:
    """The turn's events behind that sequence, up to now."""
    async with aclosing(bus.follow(stream_of(newest.subject), [newest.subject], after=begin, live=False)) as items:
        async for item in items:
            for stored in item if isinstance(item, list) else ():
                yield stored


def _begun(newest: object) -> TurnState:
    match newest:
        case t.TurnRequested():
            return "waiting"
        case t.TurnPreparing():
            return "preparing"
        case t.TurnInterrupting():
            return "interrupting"
    return "running"
