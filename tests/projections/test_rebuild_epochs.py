"""Rebuilds where a stream is another one than the live views were made from, or has forgotten what they know."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.archive import archive
from sandreel_core.bus.memory import MemoryBus, MemoryServer
from sandreel_core.bus.port import Stored, Stream, StreamState, ancestors_of, descended
from sandreel_core.clock import new_id
from sandreel_core.contract import exec as x
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.message import Command
from sandreel_core.contract.subjects import CMD
from sandreel_core.errors import Misconfigured
from sandreel_projections import tables
from sandreel_projections.change import instant
from sandreel_projections.history import lineage
from sandreel_projections.projector import Projector
from sandreel_projections.quarantine import entries, retry
from sandreel_projections.registry import COMMANDS, reel_source
from sandreel_projections.registry import sources as all_sources
from sandreel_projections.schemas import FRESH
from sandreel_projections.source import Append, Record, Source
from tests.projections.test_projector import CHUNKS, fetch, new_bus, put, reached, running
from tests.projections.test_rebuild import PACE, SUBJECTS, Told, rebuilding, rebuilt
from tests.support.script import AT, Message, job, life


@pytest.fixture
async def bus() -> MemoryBus:
    return await new_bus("e1")


def sent(command: Command) -> Message:
    id = new_id()
    subject = SUBJECTS.command("runnerd", id)
    return subject, encode(seal(command, id=id, source="/test", subject=subject, time=AT, actor="ann"))


async def test_the_history_of_commands_outlives_a_stream_that_was_replaced_without_its_copy(database: str) -> None:
    """A new, empty CMD of a new epoch: what was sent to the one before is known to the live views alone. Also after
    the next rebuild, and after a retry of what is in quarantine."""
    history = [sent(x.Start(exec=f"x-{i}", argv=["true"])) for i in range(8)]

    async def commands_of(epoch: str, messages: list[Message]) -> tuple[MemoryBus, int]:
        bus = MemoryBus(MemoryServer())
        await bus.ensure([Stream(name=CMD, subjects=("cmd.>",), max_bytes=1 << 20, metadata={"epoch": epoch})])
        return bus, await put(bus, messages)

    log = "SELECT command_id, type, actor, sequence, epoch FROM reel.command_log ORDER BY command_id"
    bus, last = await commands_of("c1", [*history[:6], ("cmd.of.nobody", b"")])
    projector = Projector(bus, database, COMMANDS, pace=PACE)
    async with running(projector):
        await reached(projector, last)
    before = await fetch(database, log)
    assert len(before) == 6
    [entry] = await entries(database, limit=10)

    # The same place of the new stream is taken by another command, and one is sent once more.
    bus, last = await commands_of("c2", [*history[6:8], history[0]])
    told = Told()
    order: dict[str, Any] = {"sources": [COMMANDS], "accept_uncompared": True}
    assert (await rebuilding(bus, database, told, **order).run()).swapped
    assert ("taken_over", {"stream": CMD, "to_sequence": 0, "rows": 7}) in told.events
    after = await fetch(database, log)
    assert [row for row in after if row["epoch"] == "c1"] == before
    assert sorted(row["sequence"] for row in after if row["epoch"] == "c2") == [1, 2]
    assert await entries(database, limit=10) == [entry]

    # And again, with the projector in between: nothing differs, and nothing is lost.
    projector = Projector(bus, database, COMMANDS, pace=PACE)
    async with running(projector):
        await reached(projector, last)
        outcome = await rebuilding(bus, database, sources=[COMMANDS]).run()
        assert (outcome.differing, bool(outcome.swapped)) == (0, True)
        subject = history[0][0].replace(history[0][0].split(".")[-1], "poison")
        await fetch(
            database,
            "INSERT INTO reel.quarantine (stream, epoch, sequence, cursor, subject, reason, body, at)"
            " VALUES ('CMD', 'c2', 1000, 'CMD:1000', $1, 'a bug', '', now())",
            subject,
        )
        retried = await retry(bus, database, COMMANDS, None)
        assert [(each.digested, each.kept) for each in retried if each.session] == [(1, "")]
    assert await fetch(database, log) == after
    assert await entries(database, limit=10) == [entry]


async def test_views_of_another_epoch_are_replaced(bus: MemoryBus, database: str) -> None:
    """After `sandreel streams restore`: the projector refuses to go on, and a rebuild is what mends it."""
    last = await put(bus, [*life(SUBJECTS), *job(SUBJECTS, "e1", CHUNKS)])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
    await bus.renew_epoch("REEL-0", "e2")
    with pytest.raises(Misconfigured, match="projections rebuild"):
        await asyncio.wait_for(Projector(bus, database, reel_source(0)).run(), 20)
    outcome = await rebuilt(bus, database)
    # Nobody can say what of the live rows the new stream lacks: that takes a word of the operator's own.
    why = "REEL-0 is of epoch e2, made from epoch e1"
    assert {each.table: each.why for each in outcome.uncompared} == dict.fromkeys(
        ("sessions", "session_stages", "execs", "exec_blocks", "exec_events", "event_log", "command_outcomes"), why
    )
    assert outcome.swapped is None
    assert (await rebuilt(bus, database, accept_differences=True)).swapped is None
    assert (await rebuilt(bus, database, accept_uncompared=True)).swapped
    last = await put(bus, job(SUBJECTS, "e2", CHUNKS))
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
    assert [row["first_cursor"][:3] for row in await fetch(database, "SELECT first_cursor FROM reel.execs")] == [
        "e2:"
    ] * 2


async def test_a_stream_that_was_replaced_does_not_keep_the_others_from_being_compared(
    bus: MemoryBus, database: str
) -> None:
    await bus.ensure([Stream(name="CMD", subjects=("cmd.>",), max_bytes=1 << 20)])
    commands = await put(bus, [sent(x.Start(exec="e1", argv=["true"])), ("cmd.spawner.acme.s1.c1", b"no command")])
    last = await put(bus, [*life(SUBJECTS), *job(SUBJECTS, "e1", CHUNKS)])
    both = sorted(all_sources(1), key=lambda source: source.stream, reverse=True)
    one, other = (Projector(bus, database, source, pace=PACE) for source in both)
    async with running(one), running(other):
        await reached(one, last)
        await reached(other, commands)
    await bus.renew_epoch("CMD", "e2")
    await fetch(database, "UPDATE reel.execs SET exit_code = 9")
    outcome = await rebuilding(bus, database, sources=both).run()
    # Every stream writes to the quarantine: it is compared as a whole or not at all.
    assert {each.table for each in outcome.uncompared} == {"command_log", "quarantine"}
    assert {each.why for each in outcome.uncompared} == {"CMD is of epoch e2, made from epoch "}
    assert {each.table: each.differing for each in outcome.compared if each.differing} == {"execs": 1}
    assert "command_log" not in {each.table for each in outcome.compared}
    assert outcome.swapped is None


async def test_one_view_of_a_stream_that_the_live_views_have_not_read_is_not_swapped(
    bus: MemoryBus, database: str
) -> None:
    """The projector would begin at the stream's beginning, and count every event twice."""
    last = await put(bus, [*life(SUBJECTS), *job(SUBJECTS, "e1", CHUNKS)])
    told = Told()
    for order in ({}, {"compare_only": True}):
        with pytest.raises(Misconfigured, match=r"not of REEL-0 as it is now: .* without --view"):
            await rebuilt(bus, database, told, views=("execs",), **order)
    # At once: an hour of reading would have been for nothing. And nothing is left of it.
    assert not told.shown
    assert not await fetch(database, "SELECT FROM pg_namespace WHERE nspname = $1", FRESH)
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
    assert (await rebuilt(bus, database, views=("execs",))).swapped


async def test_a_stream_behind_the_views_is_refused(bus: MemoryBus, database: str) -> None:
    last = await put(bus, [*life(SUBJECTS), *job(SUBJECTS, "e1", CHUNKS)])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
    older = await new_bus("e1")
    await put(older, life(SUBJECTS))
    with pytest.raises(Misconfigured, match="sandreel streams restore REEL-0"):
        await rebuilt(older, database)


async def test_what_a_stream_forgets_is_taken_over_from_the_live_views(database: str) -> None:
    """A stream that keeps messages for some days only, and that nobody archives (CMD is one)."""
    bus = MemoryBus(MemoryServer())
    await bus.ensure([Stream(name="CMD", subjects=("cmd.>",), max_bytes=1 << 20)])

    def record(stored: Stored) -> Record:
        body = stored.body
        return ("CMD", "", stored.sequence, None, str(stored.sequence), stored.subject, body.decode(), body, instant(0))

    source = Source(
        *("CMD", ("cmd.>",), None),
        decode=lambda stored, epoch: stored,
        appends=(Append(tables.quarantine, record),),
        forgets=True,
    )
    last = await put(bus, [(f"cmd.spawner.acme.s1.{i}", f"said {i}".encode()) for i in range(10)])
    projector = Projector(bus, database, source, pace=PACE)
    async with running(projector):
        await reached(projector, last)
        for i in range(6):
            await bus.purge("CMD", f"cmd.spawner.acme.s1.{i}")
        told = Told()
        outcome = await rebuilding(bus, database, told, sources=[source]).run()
        assert ("taken_over", {"stream": "CMD", "to_sequence": 6, "rows": 6}) in told.events
        assert (outcome.differing, bool(outcome.swapped)) == (0, True)
        last = await put(bus, [("cmd.spawner.acme.s1.11", b"later")])
        await reached(projector, last)
    rows = await fetch(database, "SELECT sequence, reason FROM reel.quarantine ORDER BY sequence")
    assert [row["sequence"] for row in rows] == list(range(1, 12))
    # All of it is gone: the cursor is where the live one is all the same.
    for i in range(12):
        await bus.purge("CMD", f"cmd.spawner.acme.s1.{i}")
    async with running(Projector(bus, database, source, pace=PACE)):
        outcome = await rebuilding(bus, database, sources=[source]).run()
    assert (outcome.differing, bool(outcome.swapped)) == (0, True)
    assert await fetch(database, "SELECT sequence, reason FROM reel.quarantine ORDER BY sequence") == rows
    assert await fetch(database, "SELECT sequence FROM reel.cursors") == [{"sequence": last}]


async def test_what_was_archived_before_a_stream_was_restored_belongs_to_it(
    bus: MemoryBus, database: str, tmp_path: Path
) -> None:
    """Its end alone is in the stream; and a second restore takes nothing of that away."""
    last = await put(bus, [*life(SUBJECTS), *(m for i in range(6) for m in job(SUBJECTS, f"e{i}", CHUNKS))])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
    blocks = "SELECT exec, n, data FROM reel.exec_blocks ORDER BY exec, n"
    before = await fetch(database, blocks)
    assert await archive(bus, 0, tmp_path)
    for epoch in ("e2", "e3"):
        await bus.renew_epoch("REEL-0", epoch)
        assert (await rebuilt(bus, database, archive=tmp_path, accept_uncompared=True)).swapped
        assert await fetch(database, blocks) == before


def test_of_what_was_archived_behind_the_copys_end_nothing_belongs_to_the_stream() -> None:
    metadata = {"epoch": "e1"}
    for epoch, end in (("e2", 90), ("e3", 40), ("e4", 70)):
        metadata = metadata | descended(metadata, end) | {"epoch": epoch}
    state = StreamState("REEL-0", "e4", 1, 70, 70, 1, 1, ancestors=ancestors_of(metadata))
    # What e1 had up to 90 came back only as far as e2 did, up to 40.
    assert state.ancestors == (("e3", 70), ("e2", 40), ("e1", 40))
    found = lineage(state)
    assert {epoch: found[epoch] for epoch in ("e1", "e2", "e3")} == {"e1": 40, "e2": 40, "e3": 70}
    assert found["e4"] > 1 << 60
    for damaged in ("", "e1", "e1:", ":4", "e1:x"):
        assert ancestors_of({"ancestors": damaged}) == ()
