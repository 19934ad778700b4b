"""Views made again beside the live ones, which go on: the same rows, compared, and swapped under a living projector."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_migrations.upgrade import upgrade
from sandreel_projections.follower import Pace
from sandreel_projections.progress import Progress
from sandreel_projections.projector import Projector
from sandreel_projections.rebuild import Order, Outcome, Rebuild
from sandreel_projections.registry import reel_source
from sandreel_projections.schemas import FRESH
from tests.projections.test_projector import CHUNKS, everything, fetch, new_bus, put, reached, running
from tests.support.script import job, life

SUBJECTS = SessionSubjects("acme", "s1")
PACE = Pace(max_events=50, look_s=0.05)


class Told:
    """A report that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.shown: list[Progress] = []

    def say(self, event: str, text: str, **fields: Any) -> None:
        assert "\n" not in text
        self.events.append((event, fields))

    def progress(self, what: str, progress: Progress) -> None:
        self.shown.append(progress)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]


def rebuilding(bus: MemoryBus, dsn: str, told: Told | None = None, *, pace: Pace = PACE, **order: Any) -> Rebuild:
    async def make(schema: str) -> str:
        return await upgrade(dsn, schema=schema, wait_s=10)

    return Rebuild(bus, dsn, [reel_source(0)], make, told or Told(), Order(**order), pace=pace)


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
            for _ in range(3):
                outcome = await rebuilt(bus, database)
                assert outcome.differing == 0
                assert {each.table for each in outcome.compared} == {"sessions", "execs", "exec_blocks", "quarantine"}
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
