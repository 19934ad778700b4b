"""How fast a chatty child's lines become durable, and how fast a viewer has them."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import msgspec
import psutil

from bench import bare
from bench.figure import Figure, median
from bench.rig import Rig
from sandreel_core.client import ExecHandle, Output

LINES = 1_000_000
ROUNDS = 3


async def acknowledged(rig: Rig) -> Figure:
    """A chatty child → acknowledged, fsync for each message, against a bare loop that does the same."""
    lines = rig.lines(LINES)
    session = await rig.session("output")
    ours, reference = [], []
    async with rig.without("projector"):
        for _ in range(rig.rounds(ROUNDS)):
            began, ended = await rig.ended(await rig.start(session, lines))
            ours.append(lines / ((ended - began) / 1e9))
            reference.append(lines / await bare.pipe_to_acked(rig.bare, lines))
    return Figure(
        "child → acknowledged", "lines/s", median(ours), 0.7, median(reference), "bare read-and-publish loop", True
    )


async def count_lines(handle: ExecHandle, expected: int, *, stall_s: float = 0) -> list[float]:
    """Follow to the end, count every line, and return for each block how old it was when it was seen, seconds."""
    seen, ages = 0, []
    async with aclosing(handle.follow()) as items:
        async for item in items:
            if isinstance(item, Output):
                if seen == 0 and stall_s:
                    await asyncio.sleep(stall_s)
                assert item.line == seen + 1, f"line {item.line} after {seen}"
                seen += item.data.count(b"\n")
                ages.append(time.time() - item.stored_ns / 1e9)
    assert seen == expected, f"{seen} of {expected} lines"
    return ages


async def viewed(rig: Rig) -> list[Figure]:
    """The same up to a viewer's callback per block: against the bare loop with a bare pull, and against readline."""
    lines = rig.lines(LINES)
    session = await rig.session("viewed")
    ours, bared, plain = [], [], []
    decoder = msgspec.json.Decoder(bare.Block)
    async with rig.without("projector"):
        for number in range(rig.rounds(ROUNDS)):
            began = time.perf_counter()
            await count_lines(await rig.start(session, lines), lines)
            ours.append(time.perf_counter() - began)

            subject, seen = f"bench.viewed.{number}", 0

            def on_body(body: bytes) -> bool:
                nonlocal seen
                block = decoder.decode(body)
                seen += block.count
                return seen >= lines

            publisher = await bare.aside(rig.bare, "publish", str(lines), subject)
            await bare.begun(publisher)
            began = time.perf_counter()
            await bare.pull(rig.bare, subject, on_body)
            bared.append(time.perf_counter() - began)
            await publisher.wait()
            plain.append(await bare.readline_loop(lines))
    return [
        Figure(
            *("child → viewer", "lines/s", lines / median(ours), 0.6, lines / median(bared)),
            "bare loop + bare pull",
            True,
        ),
        Figure("the same, as time", "s", median(ours), 1.3, median(plain), "asyncio readline, nothing stored"),
    ]


async def stalled(rig: Rig) -> list[Figure]:
    """One viewer sleeps 5 s in the middle of a million lines; another one must not notice."""
    lines = rig.lines(LINES)
    session = await rig.session("stalled")
    async with rig.without("projector"):
        alone = await count_lines(await rig.start(session, lines), lines)
        before = psutil.Process().memory_info().rss
        handle = await rig.start(session, lines)
        async with asyncio.TaskGroup() as group:
            slow = group.create_task(count_lines(handle, lines, stall_s=5))
            fast = group.create_task(count_lines(handle, lines))
        grown = (psutil.Process().memory_info().rss - before) / 1e6
    from bench.figure import percentile

    assert len(slow.result()) == len(fast.result())
    return [
        Figure("viewer that stalls 5 s: memory", "MB", max(grown, 0.0), 100),
        Figure(
            *("other viewer's p99 meanwhile", "ms", percentile(fast.result(), 0.99) * 1e3, 1.5),
            percentile(alone, 0.99) * 1e3,
            "the same viewer alone",
        ),
    ]
