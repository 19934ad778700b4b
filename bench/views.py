"""The way into Postgres: how fast, and how far behind."""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from contextlib import aclosing, suppress

import asyncpg

from bench import bare
from bench.figure import Figure, median, percentile
from bench.latency import TICKER
from bench.output import LINES
from bench.rig import ORG, Rig, bus_of
from sandreel_core.client import Ended, Output
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.exec import Output as OutputEvent
from sandreel_projections.projector import Projector
from sandreel_projections.registry import reel_source

ROUNDS = 3
COPY_BATCH = 512
LAG_S = 20


async def copied(rig: Rig) -> Figure:
    """A million lines in blocks, stream → Postgres, exactly once; beside a bare pull → COPY of the same messages."""
    lines = rig.lines(LINES)
    session = await rig.session("copied")
    subjects = rig.client.subjects(ORG, session)
    ours, reference = [], []
    connection = await asyncpg.connect(dsn(rig))
    await connection.execute("CREATE TABLE IF NOT EXISTS bench_blocks (seq bigint, line bigint, count int, data bytea)")
    await connection.execute("CREATE TABLE IF NOT EXISTS bench_cursor (seq bigint)")
    await connection.execute("INSERT INTO bench_cursor VALUES (0)")
    bus = await bus_of(rig.stack)
    try:
        async with rig.without("projector"):
            for _ in range(rig.rounds(ROUNDS)):
                handle = await rig.start(session, lines)
                await rig.ended(handle)
                last = (await bus.state(subjects.stream)).last_sequence
                projector = Projector(bus, dsn(rig), reel_source(subjects.partition))
                task = asyncio.ensure_future(projector.run())
                await projector.leading.wait()
                began = time.perf_counter()
                while projector.reached < last:
                    await asyncio.sleep(0.005)
                ours.append(lines / (time.perf_counter() - began))
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                reference.append(
                    lines / await _pull_and_copy(rig, connection, subjects.exec(handle.id), subjects.stream)
                )
    finally:
        await bus.close()
        await connection.close()
    return Figure("stream → Postgres", "lines/s", median(ours), 0.5, median(reference), "bare pull → COPY", True)


def dsn(rig: Rig) -> str:
    """As the roles connect."""
    server = rig.stack.parts["postgres"].server.server  # type: ignore[attr-defined]
    return str(server.dsn())


async def _pull_and_copy(rig: Rig, connection: asyncpg.Connection, subject: str, stream: str) -> float:
    began = time.perf_counter()
    rows: list[tuple[int, int, int, bytes]] = []
    number = 0

    def on_body(body: bytes) -> bool:
        nonlocal rows, number
        number += 1
        event = decode_event(subject, body)
        if isinstance(event.data, OutputEvent):
            data = event.data
            raw = base64.b64decode(data.base64) if data.base64 else (data.text or "").encode()
            rows.append((number, data.line, data.count, raw))
        return event.type == "exec.exited"

    async def copy() -> None:
        nonlocal rows
        ended = False
        while not ended or rows:
            ended = pulling.done()
            batch, rows = rows[:COPY_BATCH], rows[COPY_BATCH:]
            if not batch:
                await asyncio.sleep(0.001)
                continue
            async with connection.transaction():
                await connection.copy_records_to_table("bench_blocks", records=batch)
                await connection.execute("UPDATE bench_cursor SET seq = $1", batch[-1][0])

    pulling = asyncio.ensure_future(bare.pull(rig.bare, subject, on_body, stream=stream))
    await copy()
    await pulling
    return time.perf_counter() - began


async def lag(rig: Rig, name: str = "lag") -> Figure:
    """For each block at 10,000 lines/s: from stored in the stream to readable in Postgres."""
    session = await rig.session(name)
    subjects = rig.client.subjects(ORG, session)
    connection = await asyncpg.connect(dsn(rig))
    handle = await rig.client.exec(
        ORG, session, [sys.executable, "-I", "-c", TICKER, "200", str(200 * LAG_S), str(int(50 * max(1, rig.scale)))]
    )
    polls: list[tuple[float, int]] = []
    stored: list[tuple[int, float]] = []
    done = asyncio.Event()

    async def poll() -> None:
        while not done.is_set():
            sequence = await connection.fetchval(
                "SELECT sequence FROM reel.cursors WHERE partition = $1", subjects.partition
            )
            polls.append((time.time(), sequence or 0))
            await asyncio.sleep(0.01)

    async def watch() -> None:
        async with aclosing(handle.follow()) as items:
            stored.extend(
                [(i.cursor.sequence, i.stored_ns / 1e9) async for i in items if isinstance(i, Output | Ended)]
            )
        while not polls or polls[-1][1] < stored[-1][0]:
            await asyncio.sleep(0.05)
        done.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(poll())
        group.create_task(watch())
    await connection.close()
    ages, at = [], 0
    for sequence, when in stored:
        while polls[at][1] < sequence:
            at += 1
        ages.append(polls[at][0] - when)
    return Figure(
        *("projection lag at 10,000 lines/s, p99", "ms", percentile(ages, 0.99) * 1e3, 250),
        detail={"p50 ms": percentile(ages, 0.5) * 1e3},
    )
