"""Views made again from the log: how fast, and what the live ones notice of it."""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from typing import Any

import asyncpg
import msgspec
from nats.js.api import AckPolicy, ConsumerConfig

from bench.figure import Figure
from bench.rig import ORG, Rig, bus_of
from bench.views import dsn, lag
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.clock import now
from sandreel_core.contract import exec as x
from sandreel_core.contract.codec import encode, seal
from sandreel_migrations.upgrade import upgrade
from sandreel_projections.order import Order
from sandreel_projections.progress import Progress
from sandreel_projections.rebuild import Rebuild
from sandreel_projections.registry import sources

EXECS, LINES_EACH = 2, 1_000_000
OTHER_EVENTS = 20_000
_AT_ONCE = 200
_FETCH = 256


class _Data(msgspec.Struct):
    line: int = 0
    count: int = 0
    text: str = ""
    base64: str = ""


class _Event(msgspec.Struct):
    data: _Data


class _Silent:
    """A report that keeps when what was said."""

    def __init__(self) -> None:
        self.at_s: dict[str, float] = {}

    def say(self, event: str, text: str, **fields: Any) -> None:
        self.at_s[event] = time.perf_counter()

    def progress(self, what: str, progress: Progress) -> None:
        if progress.remaining == 0:
            self.at_s.setdefault("read", time.perf_counter())


async def rebuilt(rig: Rig) -> Figure:
    """Two million lines and 20,000 other events, to the swap; beside a bare pull → COPY of the same messages."""
    session = await rig.session("rebuilt")
    subjects = rig.client.subjects(ORG, session)
    bus = await bus_of(rig.stack)
    try:
        lines = rig.lines(LINES_EACH)
        for _ in range(EXECS):
            await rig.ended(await rig.start(session, lines))
        await _others(rig, bus, session, int(OTHER_EVENTS * rig.scale))
        state = await bus.state(subjects.stream)
        await _read_up_to(rig, state.last_sequence)
        began = time.perf_counter()
        report = _Silent()
        outcome = await _rebuild(rig, bus, report).run()
        took_s = time.perf_counter() - began
        assert outcome.swapped, "it was not swapped"
        assert not outcome.differing, "rows differ"
        reference_s = await _pull_and_copy(rig, subjects.stream, f"evt.{subjects.partition}.>", state.messages)
    finally:
        await bus.close()
    return Figure(
        *("rebuild with compare and swap", "lines/s", EXECS * lines / took_s, 0.5, EXECS * lines / reference_s),
        *("bare pull → COPY", True),
        {"s": took_s, "until read s": report.at_s.get("read", began + took_s) - began},
    )


async def lag_meanwhile(rig: Rig) -> Figure:
    """The live views' lag while rebuilds run one after the other; beside the same without."""
    alone = await lag(rig, "alone")
    count = 0

    async def again() -> None:
        """As an operator does: a process of its own."""
        nonlocal count
        while True:
            process = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-m",
                    "sandreel_core.cli",
                    "projections",
                    "rebuild",
                    "--data",
                    str(rig.stack.client.parent),
                ),
                stdout=asyncio.subprocess.DEVNULL,
            )
            try:
                code = await process.wait()
                assert code == 0, f"a rebuild ended with {code}"
                count += 1
            finally:
                if process.returncode is None:
                    process.terminate()
                    await process.wait()

    task = asyncio.ensure_future(again())
    try:
        busy = await lag(rig, "meanwhile")
        if task.done():  # it goes on for ever, unless a rebuild failed: then nothing was measured
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return Figure(
        *("live lag while a rebuild runs, p99", "ms", busy.ours, 2.0, alone.ours, "without a rebuild"),
        detail=busy.detail | {"rebuilds that ended meanwhile, beside the one under way": count},
    )


def _rebuild(rig: Rig, bus: JetStreamBus, report: _Silent) -> Rebuild:
    async def make(schema: str) -> str:
        return await upgrade(dsn(rig), schema=schema)

    return Rebuild(bus, dsn(rig), sources(1), make, report, Order())


async def _read_up_to(rig: Rig, sequence: int) -> None:
    """Until the live views have."""
    connection = await asyncpg.connect(dsn(rig))
    while (await connection.fetchval("SELECT min(sequence) FROM reel.cursors WHERE partition = 0") or 0) < sequence:
        await asyncio.sleep(0.05)
    await connection.close()


async def _pull_and_copy(rig: Rig, stream: str, subject: str, messages: int) -> float:
    """Seconds for the least that anybody would write: decode, a row each, COPY, a cursor in the same transaction."""
    connection = await asyncpg.connect(dsn(rig))
    await connection.execute("CREATE TABLE IF NOT EXISTS bench_all (seq bigint, line bigint, count bigint, data bytea)")
    await connection.execute("CREATE TABLE IF NOT EXISTS bench_all_cursor (seq bigint)")
    await connection.execute("INSERT INTO bench_all_cursor VALUES (0)")
    decoder = msgspec.json.Decoder(_Event)
    js = rig.bare.jetstream()
    config = ConsumerConfig(filter_subject=subject, ack_policy=AckPolicy.NONE, mem_storage=True)
    info = await js.add_consumer(stream, config)
    pulled = await js.pull_subscribe_bind(info.name, stream)
    began, number = time.perf_counter(), 0
    fetching = asyncio.ensure_future(pulled.fetch(_FETCH, timeout=20))
    while number < messages:
        found = await fetching
        left = messages - number - len(found)
        if left:  # the next ones come while these are written
            fetching = asyncio.ensure_future(pulled.fetch(min(_FETCH, left), timeout=20))
        rows = []
        for number, message in enumerate(found, number + 1):  # noqa: B020 - it goes on where it was
            data = decoder.decode(message.data).data
            raw = base64.b64decode(data.base64) if data.base64 else data.text.encode()
            rows.append((number, data.line, data.count, raw))
        async with connection.transaction():
            await connection.copy_records_to_table("bench_all", records=rows)
            await connection.execute("UPDATE bench_all_cursor SET seq = $1", number)
    took_s = time.perf_counter() - began
    await pulled.unsubscribe()
    await connection.close()
    return took_s


async def _others(rig: Rig, bus: JetStreamBus, session: str, count: int) -> None:
    """Small events: execs that were accepted, and ended at once."""
    subjects = rig.client.subjects(ORG, session)
    for first in range(0, count // 2, _AT_ONCE):
        names = [f"small-{i}" for i in range(first, min(first + _AT_ONCE, count // 2))]
        for n, event in enumerate(
            (x.Accepted(boot_id="1-1"), x.Exited(exit_code=0, reason="exited", duration_ms=1)), 1
        ):
            bodies = [
                (subjects.exec(name), encode(seal(event, id=f"{name}-{n}", source="/bench", subject=subjects.exec(name), time=now(), n=n)))
                for name in names
            ]  # fmt: skip
            await asyncio.gather(*(bus.append(subject, body) for subject, body in bodies))
