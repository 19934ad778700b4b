"""Many sessions line by line: history, then live, nothing twice, nothing left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from sandreel_core.bus.execs import Snapshot
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.port import Stream
from sandreel_core.cli.tail_text import TailText
from sandreel_core.client import Client
from sandreel_core.client.tailing import TailCaughtUp, TailEvent, TailGap, TailItem, TailLine
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.cursors import Cursors
from sandreel_core.contract.subjects import SessionSubjects, parse_event_subject
from sandreel_core.errors import Malformed
from sandreel_core.linewise import Line
from tests.support.script import job, life, message

ORG = "acme"
S1, S2 = SessionSubjects(ORG, "s1"), SessionSubjects(ORG, "s2")
REEL = Stream(S1.stream, ("evt.0.>",), 1 << 30, metadata={"epoch": "e1"})


async def world() -> tuple[MemoryBus, Client]:
    bus = MemoryBus()
    await bus.ensure([REEL])
    return bus, Client(bus)


async def every(items: AsyncGenerator[list[TailItem], None]) -> list[TailItem]:
    async with asyncio.timeout(30), aclosing(items):
        return [item async for batch in items for item in batch]


async def until(items: AsyncGenerator[list[TailItem], None], count: int) -> list[TailItem]:
    """At least so many."""
    found: list[TailItem] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            found += await anext(items)
    return found


def shown(items: list[TailItem]) -> list[tuple[str, int, bytes]]:
    return [(item.where.session, item.line.number, item.line.data) for item in items if isinstance(item, TailLine)]


async def put(bus: MemoryBus, *messages: tuple[str, bytes]) -> None:
    for subject, body in messages:
        await bus.append(subject, body)


async def test_lines_that_are_split_over_blocks_of_sessions_that_print_at_once_are_joined() -> None:
    bus, client = await world()
    one = job(S1, "x1", [("stdout", b"on"), ("stdout", b"e\ntw"), ("stdout", b"o\nend")])
    two = job(S2, "x2", [("stdout", b"1\n"), ("stderr", b"2\n"), ("stdout", b"3\n4\n")])
    await put(bus, *life(S1), *(m for pair in zip(one, two, strict=True) for m in pair))

    found = await every(client.tail(ORG, live=False))

    assert shown(found) == [
        *[("s2", 1, b"1"), ("s1", 1, b"one"), ("s2", 1, b"2"), ("s1", 2, b"two")],
        *[("s2", 2, b"3"), ("s2", 3, b"4"), ("s1", 3, b"end")],
    ]
    assert all(item.line.ended and item.line.begun for item in found if isinstance(item, TailLine))
    assert isinstance(found[-1], TailCaughtUp)


async def test_there_is_no_seam_between_history_and_live() -> None:
    bus, client = await world()
    log = job(S1, "x1", [("stdout", b"line %d\n" % n) for n in range(1, 401)])
    await put(bus, *log[:150])

    async def write() -> None:
        for each in log[150:]:
            await put(bus, each)

    async with aclosing(client.tail(ORG, ["s1"])) as items:
        writing = asyncio.create_task(write())
        found = await until(items, 401)
        await writing

    assert shown(found) == [("s1", n, b"line %d" % n) for n in range(1, 401)]
    assert [type(item) for item in found].count(TailCaughtUp) == 1


async def test_a_line_that_has_not_ended_is_shown_after_a_while_and_marked() -> None:
    bus, client = await world()
    log = job(S1, "x1", [("stdout", b"Password: "), ("stdout", b"ok\n")])
    await put(bus, *log[:3])

    async with aclosing(client.tail(ORG, unfinished_s=0.02)) as items:
        first = (await until(items, 2))[-1]
        await put(bus, *log[3:])
        second = (await until(items, 1))[0]

    assert isinstance(first, TailLine)
    assert isinstance(second, TailLine)
    assert (first.line.data, first.line.begun, first.line.ended) == (b"Password: ", True, False)
    assert (second.line.data, second.line.begun, second.line.ended) == (b"ok", False, True)


async def test_what_has_not_ended_when_the_reading_ends_is_given_out() -> None:
    bus, client = await world()
    await put(bus, *job(S1, "x1", [("stdout", b"ready\nPassword: ")])[:3])
    assert shown(await every(client.tail(ORG, live=False))) == [("s1", 1, b"ready"), ("s1", 2, b"Password: ")]

    stop = asyncio.Event()
    found: list[TailItem] = []
    async with asyncio.timeout(30), aclosing(client.tail(ORG, unfinished_s=3600, stop=stop)) as items:
        async for batch in items:
            found += batch
            stop.set()
    [*_, last] = [item for item in found if isinstance(item, TailLine)]
    assert (last.line.data, last.line.ended) == (b"Password: ", False)


async def test_a_line_that_was_waited_for_does_not_set_the_cursor_back() -> None:
    where = parse_event_subject(S1.exec("x1"))
    text = TailText(Cursors([Cursor("e1", 0, 2)]), json=False, colours=False, with_org=False)
    for sequence in (6, 3):
        text.text([TailLine(where, "stdout", Line(1, b"a"), Cursor("e1", 0, sequence), sequence)])
    assert text.cursors == Cursors([Cursor("e1", 0, 6)])


@pytest.mark.parametrize("with_snapshot", [False, True])
async def test_what_goes_on_in_the_middle_of_a_line_is_marked(with_snapshot: bool) -> None:
    bus, client = await world()
    pieces: list[tuple[x.Stream, bytes]] = [
        ("stdout", b"one\ntw"),
        ("stderr", b"er"),
        ("stdout", b"o"),
        ("stdout", b"!\nthree\n"),
        ("stderr", b"r\n"),
    ]
    await put(bus, *job(S1, "x1", [*pieces, ("stdout", b"four\n")]))
    subject = S1.exec("x1")
    opened = {0: {}, 3: {"stdout": 2}, 4: {"stdout": 2, "stderr": 1}, 5: {"stdout": 2, "stderr": 1}, 6: {"stderr": 1}}

    async def snapshots(partition: int) -> Snapshot | None:
        at = min(after, 4)  # what came between it and the cursor is read
        open_lines = {(subject, stream): line for stream, line in opened[at].items()}
        return Snapshot(Cursor("e1", partition, at), {subject: at + 1}, open=open_lines)  # type: ignore[arg-type]

    for after in (3, 4, 5, 6):
        items = client.tail(
            ORG, since=Cursor("e1", 0, after), snapshots=snapshots if with_snapshot else None, live=False
        )
        first: dict[str, Line] = {}
        for item in await every(items):
            if isinstance(item, TailLine):
                first.setdefault(item.stream, item.line)
        assert first["stdout"].begun is ("stdout" not in opened[after]), after
        assert first["stderr"].begun is ("stderr" not in opened[after]), after
        assert first["stdout"].number == (2 if after < 6 else 4)


async def test_a_place_in_several_partitions_goes_on_exactly_there() -> None:
    bus = MemoryBus()
    client = Client(bus, partitions=3)
    await bus.ensure([Stream(f"REEL-{p}", (f"evt.{p}.>",), 1 << 30, metadata={"epoch": f"e{p}"}) for p in range(3)])
    names = [f"s{n}" for n in range(8)]
    assert {SessionSubjects(ORG, name, 3).partition for name in names} == {0, 1, 2}
    for name in names:
        await put(bus, *job(SessionSubjects(ORG, name, 3), "x1", [("stdout", b"%d\n" % n) for n in range(20)]))
    every_line = {(name, n, b"%d" % (n - 1)) for name in names for n in range(1, 21)}
    found: list[tuple[str, int, bytes]] = []
    since: Cursor | Cursors | None = None
    for _ in range(200):
        text = TailText(await client.places(ORG, since=since), json=False, colours=False, with_org=False)
        async with aclosing(client.tail(ORG, since=since, live=False)) as items:
            batch = await anext(items, None)
        if batch is None or any(isinstance(item, TailCaughtUp) for item in batch):
            break
        text.text(batch)
        found += shown(batch)
        since = Cursors.parse(str(text.cursors))

    assert len(found) == len(every_line)
    assert set(found) == every_line
    with pytest.raises(Malformed, match="partition 2"):
        await client.places(ORG, since=Cursors.parse("e0:0:1,e1:1:1"))


async def test_an_unfinished_line_is_judged_again_when_it_is_whole() -> None:
    bus, client = await world()
    judged: list[bytes] = []

    def judge(line: bytes) -> bool:
        judged.append(line)
        return b"FAILED" in line

    log = job(S1, "x1", [("stdout", b"test one "), ("stdout", b"FAILED\nmore\n")])
    await put(bus, *log[:3])
    async with aclosing(client.tail(ORG, judge=judge, unfinished_s=0.02)) as items:
        assert isinstance((await until(items, 1))[0], TailCaughtUp)
        waiting = asyncio.create_task(until(items, 1))
        while b"test one " not in judged:
            await asyncio.sleep(0.005)
        await put(bus, *log[3:])
        found = await waiting

    assert shown(found) == [("s1", 1, b"test one FAILED")]


async def test_since_filters_streams_and_events() -> None:
    bus, client = await world()
    log = [*life(S1), *job(S1, "x1", [("stdout", b"a\n"), ("stderr", b"b\n"), ("stdout", b"c\n")])]
    await put(bus, *log)

    later = await every(client.tail(ORG, since=Cursor("e1", 0, 6), live=False))
    errors = await every(client.tail(ORG, stream="stderr", live=False))
    events = await every(client.tail(None, events=True, live=False))

    assert shown(later) == [("s1", 1, b"b"), ("s1", 2, b"c")]
    assert shown(errors) == [("s1", 1, b"b")]
    assert [item.event.type for item in events if isinstance(item, TailEvent)] == [
        *("session.requested", "session.provisioned", "session.ready"),
        *("exec.accepted", "exec.started", "exec.exited"),
    ]


async def test_a_snapshot_of_before_the_cursor_spares_reading_from_the_beginning() -> None:
    bus, client = await world()
    log = job(S1, "x1", [("stdout", b"%d\n" % n) for n in range(1, 41)])
    await put(bus, *log)
    subject = S1.exec("x1")
    asked: list[int] = []

    async def snapshots(partition: int) -> Snapshot:
        return Snapshot(Cursor("e1", partition, 10), {subject: 11})

    async def ahead(partition: int) -> Snapshot:
        return Snapshot(Cursor("e1", partition, 40), {subject: 41})

    follow = bus.follow

    def counting(stream: str, filters, *, after: int = 0, live: bool = True):  # type: ignore[no-untyped-def]
        asked.append(after)
        return follow(stream, filters, after=after, live=live)

    bus.follow = counting  # type: ignore[method-assign]
    since = Cursor("e1", 0, 20)
    with_it = await every(client.tail(ORG, since=since, snapshots=snapshots, live=False))
    assert asked == [10]
    without = await every(client.tail(ORG, since=since, live=False))
    too_new = await every(client.tail(ORG, since=since, snapshots=ahead, live=False))

    assert shown(with_it) == shown(without) == shown(too_new) == [("s1", n, b"%d" % n) for n in range(19, 41)]


async def test_what_is_missing_is_told() -> None:
    bus, client = await world()
    log = job(S1, "x1", [("stdout", b"%d\n" % n) for n in range(1, 5)])
    await put(bus, *log, message(S2, x.Gap(from_n=1, to_n=3, why="refused"), key="x2", n=4))
    await bus.purge(S1.stream, S1.exec("x1"), keep=1)

    found = await every(client.tail(ORG, live=False))

    whys = [item.why for item in found if isinstance(item, TailGap)]
    assert ["REEL-0 does not hold" in whys[0], "archived" in whys[1], "refused" in whys[2]] == [True] * 3


async def test_all_partitions_are_caught_up_before_it_is_said() -> None:
    bus = MemoryBus()
    client = Client(bus, partitions=3)
    await bus.ensure([Stream(f"REEL-{p}", (f"evt.{p}.>",), 1 << 30, metadata={"epoch": "e"}) for p in range(3)])
    names = [f"s{n}" for n in range(12)]
    for name in names:
        await put(bus, *job(SessionSubjects(ORG, name, 3), "x1", [("stdout", name.encode() + b"\n")]))

    found = await every(client.tail(ORG, names, live=False))

    assert {session for session, _, _ in shown(found)} == set(names)
    assert [type(item) for item in found].count(TailCaughtUp) == 1
    assert isinstance(found[-1], TailCaughtUp)


async def test_names_are_checked_and_bounded() -> None:
    _, client = await world()
    for org, sessions in (("a*", []), (">", []), (ORG, ["s.1"]), (None, ["s1"]), (ORG, [f"s{n}" for n in range(513)])):
        with pytest.raises(Malformed):
            await every(client.tail(org, sessions))
