"""The days of `reel.exec_blocks`: any day may come, in any order, and nobody who reads is waited for."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import asyncpg

from sandreel_core.bus.port import Stored
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_projections.batch import Batch, Views
from sandreel_projections.registry import reel_source
from sandreel_projections.writer import Writer
from tests.support.script import job

SUBJECTS = SessionSubjects("acme", "s1")
DAYS = [datetime(2026, 11, 24, 23, 59, 59, 999_999, UTC), datetime(2026, 11, 25, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2031, 2, 28, tzinfo=UTC), datetime(2026, 12, 31, 12, tzinfo=UTC)]  # fmt: skip


async def test_a_day_without_partition_never_fails(database: str) -> None:
    reader = await asyncpg.connect(database)
    async with Writer.open(database, reel_source(0)) as writer:
        await writer.lead()
        await writer.begin("e1")
        before = 0
        async with reader.transaction():
            await reader.fetch("SELECT * FROM reel.exec_lines")  # an analyst whose transaction goes on and on
            for i, day in enumerate(DAYS):
                views, batch = Views(reel_source(0), "e1"), Batch(before=before)
                for stored in _stored(f"e{i}", before, day):
                    made = views.decode(stored, batch)
                    assert made is not None
                    views.apply(stored, made, batch)
                    batch.sequence = stored.sequence
                async with asyncio.timeout(20):
                    await writer.commit(batch)
                before = batch.sequence
    rows = await reader.fetch("SELECT tableoid::regclass::text AS day, at FROM reel.exec_blocks ORDER BY sequence")
    assert [(row["day"], row["at"]) for row in rows] == [(f"reel.exec_blocks_{day:%Y%m%d}", day) for day in DAYS]
    ahead = await reader.fetchval("SELECT to_regclass('reel.exec_blocks_20260101') IS NULL AND to_regclass('reel.exec_blocks_20261126') IS NOT NULL")  # fmt: skip
    assert ahead is True
    comment = await reader.fetchval("SELECT col_description('reel.exec_blocks_20261124'::regclass, 1)")
    assert comment == "organisation"
    await reader.close()


async def test_several_writers_make_the_same_day_at_once(database: str) -> None:
    async def write(partition: int) -> None:
        async with Writer.open(database, reel_source(partition)) as writer:
            await writer.lead()
            await writer.begin("e1")
            views, batch = Views(reel_source(partition), "e1"), Batch(before=0, sequence=3)
            for stored in _stored(f"e{partition}", 0, DAYS[0]):
                made = views.decode(stored, batch)
                assert made is not None
                views.apply(stored, made, batch)
            await writer.commit(batch)

    await asyncio.gather(*(write(partition) for partition in range(6)))


def _stored(exec_id: str, after: int, at: datetime) -> list[Stored]:
    seconds = int((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    time_ns = seconds * 10**9 + at.microsecond * 1000
    messages = job(SUBJECTS, exec_id, [("stdout", b"line\n")])[:3]
    return [Stored(subject, sequence, body, time_ns) for sequence, (subject, body) in enumerate(messages, after + 1)]
