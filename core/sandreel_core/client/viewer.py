"""One exec as a viewer sees it: the events that count, typed, with the cursor to go on from."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from sandreel_core.bus.execs import Gone, Recorded, follow_exec
from sandreel_core.bus.port import Bus
from sandreel_core.client.items import CaughtUp, ExecItem, Gap, entry
from sandreel_core.client.reels import Reels
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.subjects import SessionSubjects


async def view(
    bus: Bus, reels: Reels, subjects: SessionSubjects, exec_id: str, *, after: Cursor | None = None, live: bool = True
) -> AsyncGenerator[ExecItem, None]:
    """Its items behind `after`, until its end or, unless `live`, until what is stored now. Close it. One CaughtUp says
    where what was stored ends; there is none when the exec's end is stored already.

    Raises Malformed for a cursor of another stream, NotFound when the installation has no such stream.
    """
    place = after or await reels.cursor(subjects.partition, 0)
    async with aclosing(follow_exec(bus, subjects, exec_id, after=after, live=live)) as items:
        async for item in items:
            if isinstance(item, Recorded):
                place = item.cursor
                yield entry(place, item.time_ns, item.event)
            elif isinstance(item, Gone):
                since = item.from_n if item.from_n is not None else "?"
                yield Gap(place, f"events {since} to {item.to_n} are not in the stream any more: they were archived")
            else:
                yield CaughtUp(place)
