"""What `port.py` promises of work and feeds, over the memory twin and over JetStream."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from sandreel_core.bus.port import Bus, Stored, Work
from sandreel_core.errors import NotFound, Unavailable
from tests.core.bus.conftest import CMD, LIMIT_S, REEL, World, bodies, fill, forever, numbers


async def test_work_is_given_until_it_is_acknowledged(world: World) -> None:
    work = Work("CMD", "w", ("cmd.a.>",), ack_wait_s=2.0)
    await world.bus.ensure([CMD], [work])
    for name in ("x", "y", "z"):
        await world.bus.append(f"cmd.a.{name}", name.encode())
    await world.bus.append("cmd.b.x", b"not for w")
    seen: list[tuple[bytes, int]] = []
    async with asyncio.timeout(LIMIT_S), aclosing(world.bus.work(work)) as deliveries:
        async for delivery in deliveries:
            seen.append((delivery.stored.body, delivery.attempts))
            if delivery.stored.body == b"x":
                await delivery.ack()
            elif delivery.stored.body == b"y":
                await delivery.term()
            elif delivery.attempts == 1:
                await delivery.nak(0.1)
            elif delivery.attempts >= 3:
                await delivery.ack()
                break
    # The second time z is neither acknowledged nor given back: it comes again when its time is over (and, to a machine
    # that stood still for as long, once more than it has seen).
    assert seen[:4] == [(b"x", 1), (b"y", 1), (b"z", 1), (b"z", 2)]
    assert [body for body, _ in seen[4:]] == [b"z"]


async def test_a_later_version_may_read_more_with_the_same_work(world: World) -> None:
    await world.bus.ensure([CMD], [Work("CMD", "w", ("cmd.a.>",))])
    await world.bus.append("cmd.b.x", b"early")
    wider = Work("CMD", "w", ("cmd.>",))
    await world.bus.ensure([CMD], [wider])
    await world.bus.append("cmd.b.y", b"late")
    async with asyncio.timeout(LIMIT_S), aclosing(world.bus.work(wider)) as deliveries:
        async for delivery in deliveries:
            await delivery.ack()
            if delivery.stored.body == b"late":
                return


async def test_two_share_work_and_what_one_leaves_the_other_gets(world: World) -> None:
    work = Work("CMD", "w", ("cmd.>",), ack_wait_s=2.0)
    await world.bus.ensure([CMD], [work])
    other = await world.another()
    seen: set[bytes] = set()  # one that was cancelled before its acknowledgement comes twice
    done = asyncio.Event()

    async def worker(bus: Bus) -> None:
        async with aclosing(bus.work(work)) as deliveries:
            async for delivery in deliveries:
                seen.add(delivery.stored.body)
                await delivery.ack()
                if len(seen) == 60:
                    done.set()

    async with asyncio.TaskGroup() as tasks:
        workers = [tasks.create_task(worker(bus)) for bus in (world.bus, other)]
        for number in range(30):
            await world.bus.append(f"cmd.{number}", str(number).encode())
        async with asyncio.timeout(LIMIT_S):
            while not seen:
                await asyncio.sleep(0.01)
        workers[0].cancel()
        for number in range(30, 60):
            await other.append(f"cmd.{number}", str(number).encode())
        await asyncio.wait_for(done.wait(), LIMIT_S)
        workers[1].cancel()
    assert sorted(seen, key=int) == numbers(0, 59)


async def test_work_goes_on_when_the_server_was_killed(world: World) -> None:
    work = Work("CMD", "w", ("cmd.>",))
    await world.bus.ensure([CMD], [work])
    async with asyncio.timeout(LIMIT_S), aclosing(world.bus.work(work)) as deliveries:
        await world.bus.append("cmd.1", b"1")
        first = await anext(deliveries)
        await first.ack()
        generation = world.bus.generation
        await world.crash()
        with pytest.raises(Unavailable):
            await forever(first.ack)
        await world.start()
        await world.bus.wait_connected(generation)
        await world.bus.append("cmd.2", b"2")
        async for delivery in deliveries:
            await delivery.ack()
            if delivery.stored.body == b"2":
                break


async def test_a_feed_begins_behind_a_sequence_and_vanishes_with_the_server(world: World) -> None:
    await world.bus.ensure([REEL])
    await fill(world.bus, "evt.0.a", 1, 5)
    await world.bus.make_feed("REEL-0", "f", ["evt.0.a"], after=3)
    await world.bus.make_feed("REEL-0", "f", ["evt.0.a"], after=2)
    reader = await world.another()
    async with asyncio.timeout(LIMIT_S), aclosing(reader.feed("REEL-0", "f")) as batches:
        got: list[Stored] = []
        while len(got) < 3:
            got += await anext(batches)
        assert bodies(got) == numbers(3, 5)
        await fill(world.bus, "evt.0.a", 6, 6)
        assert bodies(await anext(batches)) == [b"6"]
        await world.crash()
        with pytest.raises(NotFound):
            await anext(batches)
        await world.start()
        await reader.wait_connected()
    with pytest.raises(NotFound):
        async with asyncio.timeout(LIMIT_S), aclosing(reader.feed("REEL-0", "f")) as batches:
            await anext(batches)


async def test_a_feed_that_is_dropped_ends(world: World) -> None:
    await world.bus.ensure([REEL])
    await world.bus.make_feed("REEL-0", "f", ["evt.0.a"], after=0)
    async with asyncio.timeout(LIMIT_S), aclosing(world.bus.feed("REEL-0", "f")) as batches:
        await fill(world.bus, "evt.0.a", 1, 1)
        assert bodies(await anext(batches)) == [b"1"]
        await world.bus.drop_feed("REEL-0", "f")
        with pytest.raises(NotFound):
            await anext(batches)
