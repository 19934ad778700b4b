"""Views made again beside the live ones, which go on: the same rows, compared, and swapped under a living projector."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.archive import archive
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Conflict, Malformed, Misconfigured
from sandreel_migrations.check import views
from sandreel_migrations.rebuild_command import tell
from sandreel_migrations.upgrade import upgrade
from sandreel_projections.follower import Pace
from sandreel_projections.lag import lags
from sandreel_projections.order import Order, Outcome
from sandreel_projections.progress import Progress
from sandreel_projections.projector import Projector
from sandreel_projections.quarantine import entries, retry
from sandreel_projections.rebuild import Rebuild
from sandreel_projections.registry import reel_source
from sandreel_projections.schemas import FRESH
from sandreel_projections.source import Source
from tests.projections.test_projector import CHUNKS, everything, fetch, new_bus, put, reached, running
from tests.projections.test_quarantine import with_a_bug
from tests.support.script import job, life

SUBJECTS = SessionSubjects("acme", "s1")
PACE = Pace(max_events=50, look_s=0.05)


class Told:
    """A report that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.shown: list[Progress] = []
        self.texts: list[str] = []

    def say(self, event: str, text: str, **fields: Any) -> None:
        assert "\n" not in text
        self.events.append((event, fields))
        self.texts.append(text)

    def progress(self, what: str, progress: Progress) -> None:
        self.shown.append(progress)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]


def rebuilding(
    bus: MemoryBus, dsn: str, told: Told | None = None, *, sources: Sequence[Source] | None = None, **order: Any
) -> Rebuild:
    async def make(schema: str) -> str:
        return await upgrade(dsn, schema=schema, wait_s=10)

    return Rebuild(bus, dsn, sources or [reel_source(0)], make, told or Told(), Order(**order), pace=PACE)


async def rebuilt(bus: MemoryBus, dsn: str, told: Told | None = None, **order: Any) -> Outcome:
    async with asyncio.timeout(60):
        return await rebuilding(bus, dsn, told, **order).run()


@pytest.fixture
async def bus() -> MemoryBus:
    return await new_bus("e1")


@asynccontextmanager
async def pouring(bus: MemoryBus) -> AsyncIterator[list[int]]:
    """Execs, one after the other, until the context ends; the last sequence."""
    last = [0]

    async def pour() -> None:
        number = 0
        while True:
            number += 1
            last[0] = await put(bus, job(SUBJECTS, f"poured-{number}", CHUNKS))
            await asyncio.sleep(0.002)

    task = asyncio.ensure_future(pour())
    try:
        yield last
    finally:
        task.cancel()


async def test_rebuilt_compared_and_swapped_while_events_pour_in(
    bus: MemoryBus, database: str, empty_database: str
) -> None:
    """Nothing differs, the projector goes on in the new tables, and afterwards all is as if nothing had happened."""
    last = await put(bus, [*life(SUBJECTS), *(m for i in range(40) for m in job(SUBJECTS, f"e{i}", CHUNKS))])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector) as task:
        await reached(projector, last)
        async with pouring(bus) as poured:
            for _ in range(2):
                outcome = await rebuilt(bus, database)
                assert outcome.differing == 0
                assert {each.table for each in outcome.compared} >= {"sessions", "execs", "exec_blocks", "quarantine"}
                assert outcome.swapped is not None
                at = projector.reached
                await reached(projector, at + 1)
        await reached(projector, poured[0])
        assert not task.done()
    old = await fetch(database, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'reel\\_%'")
    assert len([row for row in old if row["nspname"].startswith("reel_old_")]) >= 1
    assert FRESH not in [row["nspname"] for row in old]
    await upgrade(empty_database, wait_s=10)
    calm = Projector(bus, empty_database, reel_source(0))
    async with running(calm):
        await reached(calm, poured[0])
    assert await everything(database) == await everything(empty_database)


async def test_differences_are_named_and_nothing_is_swapped_until_they_are_accepted(
    bus: MemoryBus, database: str
) -> None:
    last = await put(bus, [*life(SUBJECTS), *(m for i in range(30) for m in job(SUBJECTS, f"e{i:02}", CHUNKS))])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
        good = await everything(database)
        await fetch(database, "UPDATE reel.execs SET exit_code = 9, reason = 'made up' WHERE exec <= 'e19'")
        await fetch(database, "DELETE FROM reel.exec_blocks WHERE exec = 'e03' AND n = 3")
        outcome = await rebuilt(bus, database)
        assert outcome.swapped is None
        found = {each.table: each for each in outcome.compared}
        assert {table: each.differing for table, each in found.items() if each.differing} == {
            "execs": 20, "exec_blocks": 1,
        }  # fmt: skip
        assert (found["execs"].rows, found["exec_blocks"].rows) == (30, 30 * 4 - 1)
        first, second, *rest = found["execs"].first
        assert (first.key, first.column, first.live, first.rebuilt) == (
            {"org": "acme", "session": "s1", "exec": "e00"}, "exit_code", 9, 0,
        )  # fmt: skip
        assert (second.column, second.live, second.rebuilt, len(rest)) == ("reason", "made up", "exited", 18)
        [missing] = found["exec_blocks"].first
        assert (missing.column, missing.live is None, missing.rebuilt is None) == ("", True, False)

        assert (await rebuilt(bus, database, compare_only=True)).swapped is None
        told = Told()
        assert (await rebuilt(bus, database, told, accept_differences=True)).swapped
        assert told.names[0] == "goes_on"
        assert await everything(database) == good
        assert (await rebuilt(bus, database, compare_only=True)).differing == 0


async def test_a_dropped_view_comes_back_with_what_reads_it(bus: MemoryBus, database: str) -> None:
    """Tables that an operator has dropped, views and functions that went with them, comments and rights."""
    last = await put(bus, [*life(SUBJECTS), *(m for i in range(10) for m in job(SUBJECTS, f"e{i}", CHUNKS))])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector) as task:
        await reached(projector, last)
        good = await everything(database)
        objects = "SELECT relname, obj_description(oid, 'pg_class') AS comment, relacl::text FROM pg_class WHERE relnamespace = 'reel'::regnamespace AND relkind IN ('r', 'v', 'p') ORDER BY relname"  # fmt: skip
        functions = "SELECT proname, obj_description(oid, 'pg_proc') AS comment FROM pg_proc WHERE pronamespace = 'reel'::regnamespace ORDER BY proname"  # fmt: skip
        before = [await fetch(database, statement) for statement in (objects, functions)]
        lines = await fetch(database, "SELECT * FROM reel.exec_lines ORDER BY exec, stream, line")
        await fetch(database, "DROP TABLE reel.exec_blocks, reel.execs CASCADE")
        await put(bus, job(SUBJECTS, "while-it-is-gone", CHUNKS))
        outcome = await rebuilt(bus, database, views=("exec_lines",))
        assert (outcome.compared, outcome.swapped is not None) == ([], True)
        assert [await fetch(database, statement) for statement in (objects, functions)] == before
        last = await put(bus, life(SUBJECTS, 2))
        await reached(projector, last)
        assert not task.done()
    await fetch(database, "DELETE FROM reel.execs WHERE exec = 'while-it-is-gone'")
    await fetch(database, "DELETE FROM reel.exec_blocks WHERE exec = 'while-it-is-gone'")
    after = await everything(database)
    assert [after[table] for table in ("execs", "blocks", "quarantine")] == [
        good[table] for table in ("execs", "blocks", "quarantine")
    ]
    assert await fetch(database, "SELECT * FROM reel.exec_lines ORDER BY exec, stream, line") == lines
    assert await fetch(database, "SELECT * FROM reel.lines_of('acme', 's1', 'e1')")


async def test_one_view_is_swapped_and_the_others_stay(bus: MemoryBus, database: str) -> None:
    last = await put(bus, [*life(SUBJECTS), *job(SUBJECTS, "e1", CHUNKS), *job(SUBJECTS, "runs", CHUNKS)[:4]])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
        good = await everything(database)
        await fetch(database, "UPDATE reel.sessions SET phase = 'lost'")
        await fetch(database, "UPDATE reel.execs SET stdout_lines = 1000")
        outcome = await rebuilt(bus, database, views=("execs",), accept_differences=True)
        assert [each.table for each in outcome.compared] == ["execs", "exec_blocks"]
        # What the projector still remembered of the old rows is not what it goes on from.
        last = await put(bus, job(SUBJECTS, "runs", CHUNKS)[4:])
        await reached(projector, last)
    after = await everything(database)
    assert [row["phase"] for row in after["sessions"]] == ["lost"]
    assert after["execs"][0] == good["execs"][0]
    assert (after["execs"][1]["stdout_lines"], after["execs"][1]["phase"]) == (3, "exited")
    assert len(after["blocks"]) == 8
    with pytest.raises(Misconfigured, match=r"projection_lag is not made from the log; .*execs"):
        await rebuilt(bus, database, views=("projection_lag",))
    with pytest.raises(Misconfigured, match=r"'nothing' is no view"):
        await rebuilt(bus, database, views=("nothing",))


async def test_archived_execs_are_read_in_the_order_of_the_log(bus: MemoryBus, database: str, tmp_path: Path) -> None:
    """The live views have read them from the stream; the rebuild reads them from files."""
    log = [*life(SUBJECTS), *(m for i in range(12) for m in job(SUBJECTS, f"e{i}", CHUNKS))]
    # Interleaved, and with repeats: what stands in a file one after the other stood in the stream between each other.
    shuffled = [*log[:3], *(m for i in range(7) for m in log[3 + i :: 7]), *log[3:10]]
    last = await put(bus, [*shuffled, *job(SUBJECTS, "runs", CHUNKS)[:3]])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
    assert await archive(bus, 0, tmp_path)
    without = Told()
    outcome = await rebuilt(bus, database, without, compare_only=True)
    assert outcome.differing > 0
    told = Told()
    outcome = await rebuilt(bus, database, told, archive=tmp_path)
    assert outcome.differing == 0
    assert outcome.swapped
    assert ("begun_anew", {"why": "execs were archived since"}) in told.events


async def test_to_a_cursor_and_on_from_there(bus: MemoryBus, database: str) -> None:
    last = await put(bus, [*life(SUBJECTS), *(m for i in range(10) for m in job(SUBJECTS, f"e{i}", CHUNKS))])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
        outcome = await rebuilt(bus, database, to=Cursor("e1", 0, 20))
        assert (outcome.compared, outcome.swapped) == ([], None)
        assert "not compared" in outcome.not_compared
        [row] = await fetch(database, f"SELECT sequence FROM {FRESH}.cursors")
        assert row["sequence"] == 20
        for wrong, problem in (
            (Cursor("other", 0, 3), "epoch"),
            (Cursor("e1", 0, last + 1), "ends at"),
            (Cursor("e1", 4, 1), "no partition 4"),
        ):
            with pytest.raises(Malformed, match=problem):
                await rebuilt(bus, database, to=wrong)
        assert await fetch(database, f"SELECT sequence FROM {FRESH}.cursors") == [row]
        told = Told()
        assert (await rebuilt(bus, database, told, to=Cursor("e1", 0, 10))).swapped is None
        assert ("begun_anew", {"why": "what was begun is beyond e1:0:10"}) in told.events
        told = Told()
        assert (await rebuilt(bus, database, told)).swapped
        assert told.names[0] == "goes_on"


async def test_a_second_rebuild_is_refused_in_one_line(bus: MemoryBus, database: str) -> None:
    last = await put(bus, life(SUBJECTS))
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemoryBus):
        async def state(self, stream: str) -> Any:
            begun.set()
            await go_on.wait()
            return await super().state(stream)

    first = asyncio.ensure_future(rebuilt(Slow(bus.server), database))
    await asyncio.wait_for(begun.wait(), 20)
    with pytest.raises(Conflict, match="another rebuild runs") as refused:
        await rebuilt(bus, database)
    assert "\n" not in str(refused.value)
    go_on.set()
    assert (await first).swapped


async def test_what_a_rebuild_of_one_view_cannot_digest_is_in_quarantine(bus: MemoryBus, database: str) -> None:
    last = await put(bus, [*life(SUBJECTS), *job(SUBJECTS, "bad", CHUNKS)])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
    order: dict[str, Any] = {"views": ("execs",), "accept_differences": True}
    outcome = await rebuilding(bus, database, sources=[with_a_bug("bad")], **order).run()
    assert (bool(outcome.swapped), outcome.only_live, outcome.only_rebuilt) == (True, 0, 1)
    [entry] = await entries(database, limit=10)
    assert (entry.subject, entry.reason[:6]) == (SUBJECTS.exec("bad"), "execs:")


async def test_views_that_are_all_gone_are_made_from_nothing(bus: MemoryBus, empty_database: str) -> None:
    last = await put(bus, [*life(SUBJECTS), *job(SUBJECTS, "e1", CHUNKS)])
    outcome = await rebuilt(bus, empty_database)
    assert outcome.swapped == ""
    assert len(await fetch(empty_database, "SELECT FROM reel.exec_blocks")) == 4
    # Nobody has looked at the stream since: that is said, and is no error.
    [lag] = [each for each in await views(empty_database) if each.name == "projector's lag, REEL-0"]
    assert (lag.level, lag.found) == ("warn", "nobody has looked at the stream yet")
    [known] = await lags(empty_database)
    assert known.looked_s_ago is None
    projector = Projector(bus, empty_database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)


@pytest.mark.parametrize("views", [(), ("execs",)])
async def test_differences_that_come_of_the_quarantine_name_what_mends_them(
    bus: MemoryBus, database: str, views: tuple[str, ...]
) -> None:
    last = await put(bus, [*life(SUBJECTS), *job(SUBJECTS, "bad", CHUNKS)])
    projector = Projector(bus, database, with_a_bug("bad"), pace=PACE)
    async with running(projector):
        await reached(projector, last)
    outcome = await rebuilt(bus, database, views=views)
    assert (outcome.swapped, outcome.differing > 0, outcome.only_live, outcome.only_rebuilt) == (None, True, 1, 0)
    told = Told()
    assert tell(outcome, False, told) == 1
    [said] = [text for text in told.texts if "quarantine retry" in text]
    assert "the live views have 1 event in quarantine that the rebuilt ones have not" in said
    assert [each.digested for each in await retry(bus, database, reel_source(0), None)] == [1]
    assert (await rebuilt(bus, database, views=views)).swapped
