"""What the gateway has counted of turns, from the log of their session's usage."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from sandreel_core.bus.port import Bus
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.contract.turn import Usage
from sandreel_core.contract.usage import UsageReconciled, UsageRecorded
from sandreel_core.errors import Malformed
from sandreel_core.turn import summed


async def read_usage(
    bus: Bus, subjects: SessionSubjects, *, after: int, live: bool
) -> AsyncGenerator[tuple[int, UsageRecorded | UsageReconciled], None]:
    """With the sequence of each. What cannot be read is passed over. Close it. Raises Unavailable, NotFound."""
    async with aclosing(bus.follow(subjects.stream, [subjects.event("usage")], after=after, live=live)) as batches:
        async for batch in batches:
            for stored in batch if isinstance(batch, list) else ():
                try:
                    data = decode_event(stored.subject, stored.body).data
                except Malformed:
                    continue
                if isinstance(data, UsageRecorded | UsageReconciled):
                    yield stored.sequence, data


async def costs(bus: Bus, subjects: SessionSubjects, turns: Iterable[str], *, after: int) -> dict[str, int | None]:
    """What each of these turns of a session has cost by now, in micro-USD; None: the price of a call is not known. One without a call is not
    in it. `after`: a sequence before the first of them. Raises as above."""
    wanted = set(turns)
    calls: dict[str, dict[str, Usage]] = {}
    async with aclosing(read_usage(bus, subjects, after=after, live=False)) as found:
        async for _, data in found:
            if isinstance(data, UsageRecorded) and data.turn in wanted:
                calls.setdefault(data.turn, {}).setdefault(data.call_id, data.usage)
    return {turn: summed(each.values()).cost_micro_usd for turn, each in calls.items()}
