"""How things stood at a place of the log: at any place, as if everything up to there had been read."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from sandreel_core.archive import archive
from sandreel_core.as_of import ExecAt
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.port import Bus, Stream
from sandreel_core.client import Client, standing
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.contract.workspace import EnvPatched
from sandreel_core.errors import Malformed, NotFound
from sandreel_runnerd.tally import Tally
from tests.support.nats import Connect
from tests.support.script import Message, blocks, end, job, life, message

ORG = "acme"
S1, S2 = SessionSubjects(ORG, "s1"), SessionSubjects(ORG, "s2")
REEL = Stream(S1.stream, ("evt.0.>",), 1 << 30, metadata={"epoch": "e1"})


async def stored(bus: Bus, messages: Iterable[Message]) -> None:
    for subject, body in messages:
        await bus.append(subject, body)


def lines(first: int, last: int) -> list[tuple[x.Stream, bytes]]:
    return [("stderr" if n % 50 == 0 else "stdout", b"line %d\n" % n) for n in range(first, last + 1)]


def printed(one: ExecAt) -> list[bytes]:
    return [last.line.data for last in one.last if last.stream == "stdout"]


async def world() -> tuple[MemoryBus, Client]:
    bus = MemoryBus()
    await bus.ensure([REEL])
    return bus, Client(bus)


async def test_at_every_cursor_it_is_the_fold_of_what_stands_before_it() -> None:
    bus, client = await world()
    patched = EnvPatched(set={"A": "1"}, unset=["B"])
    short, other = job(S1, "x1", lines(1, 5)), job(S2, "x2", [("stdout", b"par"), ("stdout", b"tial")])
    log = [
        *life(S1),
        *life(S2),
        message(S1, patched),
        *(m for pair in zip(short, [*other, *other], strict=False) for m in pair),
    ]
    log += end(S2)
    await stored(bus, log)

    for sequence in range(3, len(log) + 1):
        half = MemoryBus()
        await half.ensure([REEL])
        await stored(half, log[:sequence])
        then = await client.state_at(ORG, at=Cursor("e1", 0, sequence))
        alone = await Client(half).state_at(ORG)
        assert [(each.session, each.state, each.sequence) for each in then.sessions] == [
            (each.session, each.state, each.sequence) for each in alone.sessions
        ]
        for one, same in zip(then.sessions, alone.sessions, strict=True):
            assert [(e.exec_id, e.state, [last.line for last in e.last]) for e in one.execs] == [
                (e.exec_id, e.state, [last.line for last in e.last]) for e in same.execs
            ]


async def test_an_exec_that_runs_is_told_with_its_lines_and_what_had_not_ended() -> None:
    bus, client = await world()
    log = [*life(S1), *job(S1, "x1", [*lines(1, 120), ("stdout", b"tail with")])]
    await stored(bus, log[:-1])

    [session] = (await client.state_at(ORG, "s1", last_lines=2)).sessions
    [one] = session.running

    assert one.state.lines == {"stdout": 118, "stderr": 2}
    assert printed(one) == [b"line 120", b"tail with"]
    assert [last.line.ended for last in one.last if last.stream == "stdout"] == [True, False]
    assert [last.line.data for last in one.last if last.stream == "stderr"] == [b"line 50", b"line 100"]
    assert session.state.phase == "ready"


async def test_a_long_exec_that_had_ended_is_told_the_same_without_being_read() -> None:
    """Its end says what it printed; of the rest only the beginning and the last lines are read."""
    bus, client = await world()
    log = job(S1, "x1", lines(1, 600))
    subject, _ = log[-1]
    counted = x.Exited(
        exit_code=3,
        reason="exited",
        duration_ms=1,
        lines={"stdout": 588, "stderr": 12},
        bytes={"stdout": 1, "stderr": 1},
    )
    log[-1] = message(S1, counted, key="x1", n=len(log))
    await stored(bus, [*life(S1), *log])
    reads: list[tuple[tuple[str, ...], int]] = []
    follow = bus.follow

    def counting(stream: str, filters, *, after: int = 0, live: bool = True):  # type: ignore[no-untyped-def]
        reads.append((tuple(filters), after))
        return follow(stream, filters, after=after, live=live)

    bus.follow = counting  # type: ignore[method-assign]
    [session] = (await client.state_at(ORG, "s1", last_lines=3)).sessions
    [one] = session.execs

    assert (one.state.phase, one.state.lines) == ("exited", {"stdout": 588, "stderr": 12})
    assert one.state.started is not None
    assert one.state.exited == counted
    assert printed(one) == [b"line 597", b"line 598", b"line 599"]
    # Its last 32 events have three lines of stdout, and not of stderr: so it is looked for further back.
    assert [after for filters, after in reads if subject in filters] == [len(life(S1)) + len(log) - 32, 5]
    assert [last.line.data for last in one.last if last.stream == "stderr"] == [b"line 500", b"line 550", b"line 600"]
    # Before its end it ran, and then it is read.
    [before] = (await client.state_at(ORG, "s1", at=Cursor("e1", 0, 300))).sessions
    assert before.execs[0].state.phase == "running"
    assert before.execs[0].state.lines["stdout"] + before.execs[0].state.lines["stderr"] == 295


def with_progress(subjects: SessionSubjects, exec_id: str, printed: list[tuple[x.Stream, bytes]]) -> list[Message]:
    """As runnerd writes it, without an end."""
    tally, log = Tally(), job(subjects, exec_id, [])[:-1]
    for block in blocks(printed):
        for event in (block, tally.add(block)):
            if event is not None:
                log.append(message(subjects, event, key=exec_id, n=len(log) + 1))
    return log


@pytest.mark.parametrize("busy", [False, True], ids=["alone", "beside another"])
async def test_a_long_exec_that_goes_on_is_told_the_same_without_being_read(
    monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    """By what it has said of itself last, at the end of the log and at any place before."""
    bus, client = await world()
    log = with_progress(S1, "x1", [*lines(1, 1500), ("stderr", b"no end"), *lines(1501, 1700)])
    other = with_progress(S2, "x2", [("stdout", b"grau \xc3\xa4\n")] * 1800)
    both = [m for pair in zip(log, other, strict=False) for m in pair] if busy else log
    await stored(bus, [*life(S1), *life(S2), *both])
    read = 0
    follow = bus.follow

    async def counting(stream: str, filters, *, after: int = 0, live: bool = True):  # type: ignore[no-untyped-def]
        nonlocal read
        async for item in follow(stream, filters, after=after, live=live):
            read += len(item) if isinstance(item, list) else 0
            yield item

    bus.follow = counting  # type: ignore[method-assign]
    last = len(both) + 6
    for cursor in (None, last - 1, last - 400, last // 2, 300, 9, 8, 7):
        at = Cursor("e1", 0, cursor) if cursor else None
        read = 0
        quick = await client.state_at(ORG, "s1", at=at, last_lines=3)
        assert cursor is None or cursor < 1000 or read < 1200, (cursor, read)
        with monkeypatch.context() as patch:
            patch.setattr(standing, "_LONG", 1 << 30)
            assert quick == await client.state_at(ORG, "s1", at=at, last_lines=3), cursor


async def test_an_exec_whose_log_holds_repeats_is_read_whole() -> None:
    bus, client = await world()
    log = with_progress(S1, "x1", lines(1, 600))
    await stored(bus, [*life(S1), *log[:400], *log[390:]])

    [session] = (await client.state_at(ORG, "s1")).sessions
    assert session.execs[0].state.lines == {"stdout": 588, "stderr": 12}


async def test_repeats_and_pieces_behind_a_hole_count_once() -> None:
    bus, client = await world()
    log = job(S1, "x1", lines(1, 200))
    await stored(bus, [*life(S1), *log[:100], *log[101:104], *log[98:]])

    [session] = (await client.state_at(ORG, "s1")).sessions
    at_hole = (await client.state_at(ORG, "s1", at=Cursor("e1", 0, 3 + 103))).sessions[0]

    assert session.execs[0].state.exited is not None
    assert printed(session.execs[0])[-1] == b"line 199"
    assert printed(at_hole.execs[0])[-1] == b"line 98"


async def test_what_was_archived_is_an_explicit_gap(tmp_path, nats_server, connect_bus: Connect) -> None:  # type: ignore[no-untyped-def]
    bus = await connect_bus()
    await bus.ensure([REEL])
    client = Client(bus)
    await stored(bus, [*life(S1), *job(S1, "x1", lines(1, 9))])
    between = await bus.append(*message(S1, EnvPatched(set={"A": "1"})))
    await stored(bus, job(S1, "x2", lines(1, 9)))
    await archive(bus, 0, tmp_path)
    assert (await bus.state(S1.stream)).messages == len(life(S1)) + 1 + 2

    [then] = (await client.state_at(ORG, "s1", at=Cursor("e1", 0, between))).sessions
    [now] = (await client.state_at(ORG, "s1")).sessions

    first, second = then.execs
    assert (first.exec_id, first.state.phase) == ("x1", "exited")
    assert "were archived" in first.missing[0]
    assert (second.exec_id, second.state.phase) == ("x2", "none")
    assert "whether it had begun" in second.missing[0]
    assert [one.state.phase for one in now.execs] == ["exited", "exited"]


async def test_a_time_is_the_servers_and_its_own_microsecond_is_included(connect_bus: Connect) -> None:
    bus = await connect_bus()
    await bus.ensure([REEL])
    client = Client(bus)
    await stored(bus, [*life(S1), *job(S1, "x1", lines(1, 3))])
    items = [item async for item in client.follow(ORG, "s1", "x1")]
    times = [item.stored_at for item in items if hasattr(item, "stored_at")]

    at_start = (await client.state_at(ORG, "s1", at=times[1])).sessions[0].execs[0]
    at_end = (await client.state_at(ORG, "s1", at=times[-1])).sessions[0].execs[0]

    assert at_start.state.phase == "running" or times[0] == times[1]
    assert at_end.state.phase == "exited"
    with pytest.raises(NotFound):
        await client.state_at(ORG, "s1", at=times[0].replace(year=2001))


async def test_a_cursor_of_one_partition_is_a_time_for_the_others() -> None:
    bus = MemoryBus()
    client = Client(bus, partitions=2)
    apart = {SessionSubjects(ORG, f"s{n}", 2).partition: SessionSubjects(ORG, f"s{n}", 2) for n in range(9)}
    await bus.ensure([Stream(f"REEL-{p}", (f"evt.{p}.>",), 1 << 30, metadata={"epoch": f"e{p}"}) for p in (0, 1)])
    await stored(bus, life(apart[0]))
    await stored(bus, life(apart[1]))
    await stored(bus, end(apart[0]))

    then = await client.state_at(ORG, at="e1:1:3")

    assert {each.session: each.state.phase for each in then.sessions} == {
        apart[0].session: "ready",
        apart[1].session: "ready",
    }
    assert then.cursors == (Cursor("e0", 0, 3), Cursor("e1", 1, 3))


async def test_a_cursor_that_belongs_elsewhere_is_refused() -> None:
    bus, client = await world()
    await stored(bus, life(S1))
    for cursor in ("e2:0:1", "e1:0:4", "e1:0", ""):
        with pytest.raises(Malformed):
            await client.state_at(ORG, "s1", at=cursor)
    with pytest.raises(NotFound):
        await client.state_at(ORG, "s1", at="e1:0:0")
