"""Events that no fold digests: told, stepped over, and taken in when the folds have learned to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.archive import archive
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.port import Item
from sandreel_core.contract import exec as x
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Unavailable
from sandreel_projections.change import Change
from sandreel_projections.projector import Projector
from sandreel_projections.quarantine import entries, retry
from sandreel_projections.registry import reel_source
from sandreel_projections.source import Source, Step
from tests.projections.test_projector import CHUNKS, PACE, everything, fetch, new_bus, put, reached, running
from tests.support.script import job, life, message

SUBJECTS = SessionSubjects("acme", "s1")


@pytest.fixture
async def bus() -> MemoryBus:
    return await new_bus("e1")


def with_a_bug(exec_id: str) -> Source:
    """The source as an earlier version had it, whose fold fails at an end of this exec."""
    source = reel_source(0)
    [fold] = [fold for fold in source.folds if fold.table.name == "execs"]

    def step(before: Any, change: Change) -> Step:
        if change.where.key == exec_id and isinstance(change.data, x.Exited):
            raise KeyError("a case\nthat nobody thought of")
        return fold.step(before, change)

    return replace(source, folds=tuple(replace(each, step=step) if each is fold else each for each in source.folds))


async def test_a_fold_that_fails_stops_one_event_and_a_retry_takes_it_in(
    bus: MemoryBus, database: str, tmp_path: Path
) -> None:
    log = [*life(SUBJECTS), *job(SUBJECTS, "good", CHUNKS), *job(SUBJECTS, "bad", CHUNKS), *job(SUBJECTS, "z", CHUNKS)]
    last = await put(bus, [*log, *life(SessionSubjects("acme", "other"))])
    old = Projector(bus, database, with_a_bug("bad"), pace=PACE)
    async with running(old) as task:
        await reached(old, last)
        assert not task.done()
        [entry] = await entries(database, limit=10)
        assert (entry.stream, entry.subject, entry.reason) == (
            "REEL-0", SUBJECTS.exec("bad"), "execs: KeyError: 'a case\\nthat nobody thought of'",
        )  # fmt: skip
        rows = await fetch(database, "SELECT exec, phase, unreadable_events, last_n FROM reel.execs ORDER BY exec")
        assert [tuple(row.values()) for row in rows] == [
            ("bad", "running", 1, 7), ("good", "exited", 0, 7), ("z", "exited", 0, 7),
        ]  # fmt: skip

        # The same code: it stays, and the rows are not touched.
        before = await everything(database)
        [still] = await retry(bus, database, with_a_bug("bad"), None)
        assert (still.digested, [each.reason for each in still.remaining], still.kept) == (0, [entry.reason], "")
        assert await everything(database) == before

    # The next version, whose projector runs: it goes on from the new rows.
    new = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(new) as task:
        await reached(new, last)
        [done] = await retry(bus, database, reel_source(0), tmp_path)
        assert (done.org, done.session, done.digested, done.remaining) == ("acme", "s1", 1, [])
        last = await put(bus, job(SUBJECTS, "later", CHUNKS))
        await reached(new, last)
        assert not task.done()
    after = await everything(database)
    assert after["quarantine"] == []
    assert [(row["exec"], row["phase"], row["unreadable_events"]) for row in after["execs"]] == [
        (name, "exited", 0) for name in ("bad", "good", "later", "z")
    ]
    assert len(after["blocks"]) == 16
    assert await retry(bus, database, reel_source(0), None) == []


async def test_a_retry_that_would_lose_rows_changes_nothing(bus: MemoryBus, database: str, tmp_path: Path) -> None:
    """Execs of the session were archived: without the archive only their ends are left."""
    last = await put(bus, [*life(SUBJECTS), *job(SUBJECTS, "old", CHUNKS), *job(SUBJECTS, "bad", CHUNKS)[:6]])
    projector = Projector(bus, database, with_a_bug("bad"), pace=PACE)
    async with running(projector):
        await reached(projector, last)
        assert await archive(bus, 0, tmp_path)
        last = await put(bus, job(SUBJECTS, "bad", CHUNKS)[6:])
        await reached(projector, last)
    before = await everything(database)
    [kept] = await retry(bus, database, reel_source(0), None)
    assert (kept.digested, len(kept.remaining)) == (0, 1)
    assert "4 rows of exec_blocks" in kept.kept
    assert "would be lost" in kept.kept
    assert await everything(database) == before
    [done] = await retry(bus, database, reel_source(0), tmp_path)
    assert (done.digested, done.remaining, done.kept) == (1, [], "")
    after = await everything(database)
    assert (len(after["blocks"]), [row["phase"] for row in after["execs"]]) == (8, ["exited", "exited"])


async def test_what_is_no_event_and_what_postgres_refuses_stays(bus: MemoryBus, database: str) -> None:
    await fetch(database, "ALTER TABLE reel.execs ADD CONSTRAINT no_seven CHECK (pid <> 7 OR exec <> 'bad')")
    log = [*job(SUBJECTS, "a", CHUNKS), *job(SUBJECTS, "bad", CHUNKS), (SUBJECTS.exec("a"), b"not json")]
    lying = message(SUBJECTS, x.Output(stream="stdout", line=1, count=7, text="a\n", eol=True), key="b", n=1)
    last = await put(bus, [*log, lying, ("evt.0.short", b"x")])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
        before = await everything(database)
        assert len(before["quarantine"]) == 4
        short, session = sorted(await retry(bus, database, reel_source(0), None), key=lambda each: each.session)
        assert (short.digested, len(short.remaining), short.kept) == (0, 1, "their subjects name no session")
        assert (session.digested, len(session.remaining)) == (0, 3)
        assert await everything(database) == before
        # The reason of one is mended: it alone is taken in.
        await fetch(database, "ALTER TABLE reel.execs DROP CONSTRAINT no_seven")
        *_, session = sorted(await retry(bus, database, reel_source(0), None), key=lambda each: each.session)
        assert (session.digested, [each.subject for each in session.remaining]) == (
            1, [SUBJECTS.exec("a"), SUBJECTS.exec("b")],
        )  # fmt: skip
    [bad] = await fetch(database, "SELECT pid, unreadable_events FROM reel.execs WHERE exec = 'bad'")
    assert bad == {"pid": 7, "unreadable_events": 0}


class Away(MemoryBus):
    """A server that never answers: readers wait for it."""

    async def follow(
        self, stream: str, filters: Sequence[str], *, after: int = 0, live: bool = True
    ) -> AsyncGenerator[Item, None]:
        await asyncio.Event().wait()
        yield []


async def test_a_retry_does_not_keep_the_projector_waiting_for_a_server_that_is_away(
    bus: MemoryBus, database: str
) -> None:
    last = await put(bus, [*life(SUBJECTS), *job(SUBJECTS, "bad", CHUNKS)])
    projector = Projector(bus, database, with_a_bug("bad"), pace=PACE)
    async with running(projector) as task:
        await reached(projector, last)
        before = await everything(database)
        async with asyncio.timeout(20):
            with pytest.raises(Unavailable, match=r"nothing of REEL-0 came for 0.1 s"):
                await retry(Away(bus.server), database, reel_source(0), None, patience_s=0.1)
        assert await everything(database) == before
        await reached(projector, await put(bus, job(SUBJECTS, "later", CHUNKS)))
        assert not task.done()
