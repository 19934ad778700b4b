"""What `sandreel tail` takes of the views: where execs stand, by an entry point that core knows by name alone."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from functools import partial
from importlib.metadata import entry_points

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.port import Stream
from sandreel_core.client import Client
from sandreel_core.client.tailing import TailLine
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_projections.follower import Pace
from sandreel_projections.projector import Projector
from sandreel_projections.registry import reel_source
from tests.support.script import job

SUBJECTS = SessionSubjects("acme", "s1")


async def test_a_tail_that_begins_in_the_middle_begins_where_the_views_are(database: str) -> None:
    bus = MemoryBus()
    await bus.ensure([Stream("REEL-0", ("evt.0.>",), 1 << 30, metadata={"epoch": "e1"})])
    log = job(SUBJECTS, "x1", [("stderr", b"half"), *(("stdout", b"line %d\n" % n) for n in range(2, 101))])
    for subject, body in log[:60]:
        await bus.append(subject, body)
    projector = Projector(bus, database, reel_source(0), pace=Pace(max_events=50, look_s=0.05))
    projecting = asyncio.ensure_future(projector.run())
    async with asyncio.timeout(60):
        while projector.reached < 60:
            await asyncio.sleep(0.01)
    projecting.cancel()
    with suppress(asyncio.CancelledError):
        await projecting
    for subject, body in log[60:]:
        await bus.append(subject, body)
    read_from: list[int] = []
    follow = bus.follow

    def counting(stream: str, filters, *, after: int = 0, live: bool = True):  # type: ignore[no-untyped-def]
        read_from.append(after)
        return follow(stream, filters, after=after, live=live)

    bus.follow = counting  # type: ignore[method-assign]
    [point] = entry_points(group="sandreel.snapshots")
    found = await point.load()(database, 0)
    assert (found.next_n, found.open) == ({SUBJECTS.exec("x1"): 61}, {(SUBJECTS.exec("x1"), "stderr"): 1})
    items = Client(bus).tail("acme", since=Cursor("e1", 0, 70), snapshots=partial(point.load(), database), live=False)
    async with aclosing(items):
        shown = [item.line.number async for batch in items for item in batch if isinstance(item, TailLine)]

    assert shown == list(range(68, 100))
    assert read_from == [60]
