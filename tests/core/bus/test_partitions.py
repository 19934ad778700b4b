"""What a stream keeps, read once; and the whole log of some aggregates, for a table that is folded of it."""

from __future__ import annotations

import asyncio

import pytest

from sandreel_core import clock
from sandreel_core.bus.kept import kept
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.partitions import Partitions
from sandreel_core.bus.port import Stream
from sandreel_core.bus.wake import Signal
from sandreel_core.contract import session as s
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.message import Envelope, Event
from sandreel_core.contract.subjects import EventSubject, SessionSubjects
from sandreel_core.errors import NotFound
from sandreel_core.log import Log
from tests.core.bus.conftest import World

LIMIT_S = 20


def reels(count: int) -> list[Stream]:
    return [Stream(f"REEL-{p}", (f"evt.{p}.>",), 1 << 24, metadata={"epoch": "first"}) for p in range(count)]


async def test_what_is_kept_comes_once_in_order_and_then_it_ends(world: World) -> None:
    bus = world.bus
    await bus.ensure(reels(1))
    for number in range(6):
        await bus.append(f"evt.0.{'a' if number != 2 else 'b'}", str(number).encode())
    await bus.purge("REEL-0", "evt.0.a", up_to=2)  # the first one is gone, which is passed over
    async with kept(bus, "REEL-0", ["evt.0.a"]) as messages:
        assert [stored.body async for stored in messages] == [b"1", b"3", b"4", b"5"]
    async with kept(bus, "REEL-0", ["evt.0.>"], after=3) as messages:
        async for stored in messages:
            assert stored.body == b"3"
            break  # whoever has found what he looks for leaves
    async with kept(bus, "REEL-0", ["evt.0.c"]) as messages:
        assert [stored async for stored in messages] == []
    with pytest.raises(NotFound):
        async with kept(bus, "REEL-7", ["evt.7.a"]) as messages:
            await anext(messages)


async def test_all_partitions_are_folded_and_what_is_no_event_is_passed_over() -> None:
    bus = MemoryBus()
    await bus.ensure(reels(3))
    sessions = [SessionSubjects("acme", f"s{number}", 3) for number in range(20)]
    of_each = {subjects.partition: subjects for subjects in sessions}
    assert sorted(of_each) == [0, 1, 2]
    found: list[tuple[str, int, str]] = []
    batches = 0

    def fold(where: EventSubject, event: Envelope, sequence: int) -> None:
        found.append((where.session, sequence, event.type))

    news = Signal()

    def folded() -> None:
        nonlocal batches
        batches += 1
        news.fire()

    async def say(subjects: SessionSubjects, event: Event, aggregate: str = "session") -> None:
        subject = subjects.event(aggregate)
        await bus.append(
            subject, encode(seal(event, id=clock.new_id(), source="/t", subject=subject, time=clock.now()))
        )

    for subjects in of_each.values():
        await say(subjects, s.Pinned())
        await bus.append(subjects.event("session"), b"no event")
        await say(subjects, s.CommandSettled(command_id=clock.new_id()), "command")  # another aggregate
    partitions = Partitions(bus, 3, ["session"], fold, folded=folded, log=Log("test"))
    assert not partitions.is_caught_up
    following = asyncio.ensure_future(partitions.run())
    async with asyncio.timeout(LIMIT_S):
        await partitions.caught_up()
        assert sorted(found) == sorted((each.session, 1, "session.pinned") for each in of_each.values())
        assert partitions.is_caught_up
        assert batches == 3
        await say(of_each[1], s.Degraded(reason="late"))
        while len(found) < 4:
            await news.wait()
    assert found[-1] == (of_each[1].session, 4, "session.degraded")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
