"""The readers of execs: every event once, in order, from any cursor; what is gone is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandreel_core.bus.execs import Gone, ManyItem, Recorded, Snapshot, follow_exec, follow_execs
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.port import CaughtUp, Item
from sandreel_core.contract import exec as c
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.session import Pinned
from sandreel_core.errors import Malformed, NotFound
from tests.support.execlog import AT, END, EPOCH, REEL, SUBJECTS, Writer, events, line, lines, read


async def stored(bus: MemoryBus, *numbers: int, exec_id: str = "e1", end: int = 0) -> None:
    """Store events with these ordinals, in this order; `end` is the ordinal of the terminal event."""
    await bus.ensure([REEL])
    writer = Writer(exec_id)
    for n in numbers:
        event: c.ExecEvent = c.Accepted(boot_id="b1") if n == 1 else END if n == end else line(n)
        await bus.append(writer.subject, writer.body(event, n))


async def read_many(
    bus: MemoryBus,
    after: Cursor | None = None,
    snapshot: Snapshot | None = None,
    filters: tuple[str, ...] = ("evt.0.>",),
) -> list[ManyItem]:
    async with aclosing(follow_execs(bus, 0, filters, after=after, snapshot=snapshot, live=False)) as items:
        return [item async for item in items]


def seen(items: list[ManyItem]) -> list[tuple[str, int | None]]:
    """(exec or aggregate, n) of what was handed out."""
    recorded = [item for item in items if isinstance(item, Recorded)]
    return [(item.event.subject.rsplit(".", 1)[1], item.event.n) for item in recorded]


def cursor(sequence: int, epoch: str = EPOCH, partition: int = 0) -> Cursor:
    return Cursor(epoch, partition, sequence)


async def test_repeats_and_pieces_behind_a_hole_are_passed_over() -> None:
    bus = MemoryBus()
    await stored(bus, 1, 2, 4, 5, 2, 3, 4, 3, 5, 6, 7, end=7)
    items = await read(bus)
    assert [event.n for event in events(items)] == [1, 2, 3, 4, 5, 6, 7]
    assert [item.cursor.sequence for item in items if isinstance(item, Recorded)] == [1, 2, 6, 7, 9, 10, 11]


async def test_a_cursor_goes_on_where_it_was_and_caught_up_comes_once() -> None:
    bus = MemoryBus()
    await stored(bus, 1, 2, 4, 3, 4, 5)
    first = [item.cursor for item in await read(bus) if isinstance(item, Recorded)]
    for place, at in enumerate(first, start=1):
        items = await read(bus, after=at)
        assert [event.n for event in events(items)] == list(range(place + 1, 6))
        assert [isinstance(item, CaughtUp) for item in items].count(True) == 1


async def test_live_events_follow_and_the_end_ends_it() -> None:
    bus = MemoryBus()
    await stored(bus, 1, 2)
    got: list[int | None] = []
    async with asyncio.timeout(10), aclosing(follow_exec(bus, SUBJECTS, "e1")) as items:
        async for item in items:
            if isinstance(item, CaughtUp):
                await stored(bus, 3, 4, 5, end=4)
            elif isinstance(item, Recorded):
                got.append(item.event.n)
    assert got == [1, 2, 3, 4]
    assert [type(item) for item in await read(bus, after=cursor(4), live=True)] == [CaughtUp]


async def test_law_2_nothing_behind_the_end_is_read() -> None:
    bus = MemoryBus()
    await stored(bus, 1, 2, 3, 4, end=3)
    items = [item async for item in follow_exec(bus, SUBJECTS, "e1", live=False, until_end=False)]
    assert [event.n for event in events(items)] == [1, 2, 3]
    assert seen(await read_many(bus))[-1] == ("e1", 3)
    assert seen(await read_many(bus, after=cursor(3))) == []


async def test_an_archived_exec_begins_with_an_explicit_gap() -> None:
    bus = MemoryBus()
    await stored(bus, 1, 2, 3, 4, end=4)
    await bus.purge(SUBJECTS.stream, SUBJECTS.exec("e1"), keep=1)
    subject = SUBJECTS.exec("e1")
    for items in (await read(bus), await read_many(bus)):
        gone = [item for item in items if isinstance(item, Gone)]
        assert gone == [Gone(subject, 1, 3)]
    assert [event.n for event in events(await read(bus))] == [4]
    assert (await read(bus, after=cursor(2)))[0] == Gone(subject, None, 3)
    assert [type(item) for item in await read(bus, after=cursor(4), live=True)] == [CaughtUp]


async def test_an_exec_that_is_archived_under_a_reader_says_what_it_lost() -> None:
    bus = MemoryBus()
    await stored(bus, 1, 2)
    got: list[object] = []
    async with asyncio.timeout(10), aclosing(follow_exec(bus, SUBJECTS, "e1")) as items:
        async for item in items:
            got.append(item.event.n if isinstance(item, Recorded) else item)
            if isinstance(item, CaughtUp):
                bus.go_away()
                bus.come_back()
                await stored(bus, 3, 4, 5, end=5)
                await bus.purge(SUBJECTS.stream, SUBJECTS.exec("e1"), keep=1)
    assert got[:2] == [1, 2]
    assert got[-2:] == [Gone(SUBJECTS.exec("e1"), 3, 4), 5]


async def test_cursors_of_another_epoch_partition_or_future_are_refused() -> None:
    bus = MemoryBus()
    await stored(bus, 1)
    for wrong in (cursor(1, epoch="ep1"), cursor(1, partition=3), cursor(2)):
        with pytest.raises(Malformed):
            await read(bus, after=wrong)
        with pytest.raises(Malformed):
            await read_many(bus, after=wrong)
    with pytest.raises(NotFound):
        await read(MemoryBus())


async def test_a_cursor_of_something_else_reads_silently_up_to_it() -> None:
    bus = MemoryBus()
    await stored(bus, 1, 2)
    await stored(bus, 1, exec_id="e2")
    await stored(bus, 3, 4)
    assert [event.n for event in events(await read(bus, after=cursor(3)))] == [3, 4]


async def test_a_cursor_of_something_else_that_is_gone_hangs_nobody_and_invents_no_gap() -> None:
    bus = MemoryBus()
    await stored(bus, 1, 2, 3, end=3)
    await stored(bus, 1, 2, exec_id="e3")
    await stored(bus, 1, 2, 3, exec_id="e2", end=3)
    await stored(bus, 3, 4, exec_id="e3", end=4)
    for archived in ("e1", "e2"):
        await bus.purge(SUBJECTS.stream, SUBJECTS.exec(archived), keep=1)
    async with asyncio.timeout(10):
        assert events(await read(bus, "e1", after=cursor(6), live=True)) == []
        items = await read(bus, "e3", after=cursor(6), live=True)
    assert [event.n for event in events(items)] == [3, 4]
    assert not any(isinstance(item, Gone) for item in items)


async def test_a_gap_event_is_handed_out_and_jumped() -> None:
    bus = MemoryBus()
    await stored(bus, 1, 2, 4, 5)
    writer = Writer()
    await bus.append(writer.subject, writer.gap(6, 3, "refused"))
    await stored(bus, 7)
    assert [event.n for event in events(await read(bus))] == [1, 2, 6, 7]


async def test_bodies_that_are_no_events_are_skipped_and_told() -> None:
    bus = MemoryBus()
    await stored(bus, 1)
    await bus.append(SUBJECTS.exec("e1"), b"\xff")
    await bus.append(SUBJECTS.exec("e1"), Writer("e2").body(line(2), 2))
    await stored(bus, 2)
    told: list[int] = []
    reader = follow_exec(bus, SUBJECTS, "e1", live=False, on_skipped=lambda stored, why: told.append(stored.sequence))
    assert [event.n for event in events([item async for item in reader])] == [1, 2]
    assert told == [2, 3]


async def test_many_without_a_snapshot_reads_an_exec_that_it_meets_in_the_middle_from_its_beginning() -> None:
    bus = MemoryBus()
    await stored(bus, 1, 2, 4)  # 4 stands behind a hole
    await stored(bus, 1, exec_id="e2")
    await stored(bus, 3, 4)
    pinned = SUBJECTS.event("session")
    await bus.append(pinned, encode(seal(Pinned(), id="x", source="/s", subject=pinned, time=AT)))
    assert seen(await read_many(bus, after=cursor(4))) == [("e1", 3), ("e1", 4), ("session", None)]
    assert seen(await read_many(bus, after=cursor(5))) == [("e1", 4), ("session", None)]


async def test_many_with_an_older_snapshot_is_silent_up_to_its_cursor() -> None:
    bus = MemoryBus()
    await stored(bus, 1, 2, 3, 4)
    snapshot = Snapshot(cursor(2), {SUBJECTS.exec("e1"): 3})
    assert seen(await read_many(bus, cursor(3), snapshot)) == [("e1", 4)]
    assert seen(await read_many(bus, cursor(2), snapshot)) == [("e1", 3), ("e1", 4)]


async def test_many_with_a_newer_snapshot_starts_at_its_cursor() -> None:
    bus = MemoryBus()
    await stored(bus, 1, 2, 3, 4, end=4)
    await stored(bus, 5)
    at_two = {SUBJECTS.exec("e1"): 3}
    assert seen(await read_many(bus, cursor(2), Snapshot(cursor(4), at_two))) == [("e1", 3), ("e1", 4)]
    ended = Snapshot(cursor(5), {SUBJECTS.exec("e1"): 5}, frozenset([SUBJECTS.exec("e1")]))
    assert seen(await read_many(bus, cursor(4), ended)) == []


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["e1", "e2", "e3"]), st.integers(1, 4)), max_size=40), st.data())
def test_law_10_any_log_from_any_cursor_gives_the_rest_of_the_same_events(
    steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    """Each exec's writer goes back a few numbers at random; all readers agree, whatever their cursor is."""

    async def run() -> None:
        bus = MemoryBus()
        await bus.ensure([REEL])
        sent: dict[str, int] = {}
        for exec_id, back in steps:
            top = sent.get(exec_id, 0)
            first = max(2, top + 2 - back) if top else 1
            await stored(bus, *range(first, max(first, top + 1) + 1), exec_id=exec_id)
            sent[exec_id] = max(first, top + 1)
        everything = [item for item in await read_many(bus) if isinstance(item, Recorded)]
        if not everything:
            return
        place = data.draw(st.integers(0, len(everything) - 1))
        rest = [item for item in await read_many(bus, everything[place].cursor) if isinstance(item, Recorded)]
        assert rest == everything[place + 1 :]
        one = everything[place].event.subject.rsplit(".", 1)[1]
        mine = [item for item in everything if item.event.subject.endswith(f".{one}")]
        at = mine.index(everything[place])
        assert [i for i in await read(bus, one, after=mine[at].cursor) if isinstance(i, Recorded)] == mine[at + 1 :]
        assert lines(list(mine)) == list(range(2, len(mine) + 1))

    asyncio.run(run())


async def test_an_exec_that_is_met_in_its_middle_is_read_up_to_there(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = MemoryBus()
    await stored(bus, *range(1, 2001))
    follow, batches = bus.follow, 0

    async def counted(
        stream: str, filters: Sequence[str], *, after: int = 0, live: bool = True
    ) -> AsyncGenerator[Item, None]:
        nonlocal batches
        async with aclosing(follow(stream, filters, after=after, live=live)) as items:
            async for item in items:
                batches += filters == [SUBJECTS.exec("e1")]
                yield item

    monkeypatch.setattr(bus, "follow", counted)
    async with aclosing(follow_execs(bus, 0, ["evt.0.>"], after=cursor(3))) as items:
        first = await anext(items)
    assert isinstance(first, Recorded)
    assert first.event.n == 4
    assert batches == 1
