"""Reading what is over: a replay from the beginning, and an attach somewhere in the middle."""

from __future__ import annotations

import random
import time
from contextlib import aclosing

from bench import bare
from bench.figure import Figure, median, percentile
from bench.output import LINES, count_lines
from bench.rig import ORG, Rig
from sandreel_core.client import ExecHandle, Output
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.cursor import Cursor

ATTACHES = 100
ROUNDS = 3


async def finished(rig: Rig, session: str, lines: int) -> ExecHandle:
    handle = await rig.start(session, lines)
    await rig.ended(handle)
    return handle


async def replayed(rig: Rig) -> list[Figure]:
    """A finished exec of a million lines from its beginning, and from anywhere; beside bare pulls."""
    lines = rig.lines(LINES)
    session = await rig.session("replayed")
    subjects = rig.client.subjects(ORG, session)
    async with rig.without("projector"):
        handle = await finished(rig, session, lines)
        subject = subjects.exec(handle.id)
        ours, reference = [], []
        for _ in range(rig.rounds(ROUNDS)):
            began = time.perf_counter()
            await count_lines(handle, lines)
            ours.append(lines / (time.perf_counter() - began))
            began, seen = time.perf_counter(), 0

            def on_body(body: bytes) -> bool:
                nonlocal seen
                event = decode_event(subject, body)
                seen += getattr(event.data, "count", 0)
                return event.type == "exec.exited"

            await bare.pull(rig.bare, subject, on_body, stream=subjects.stream)
            reference.append(lines / (time.perf_counter() - began))
            assert seen == lines
        cursors = [item.cursor async for item in _outputs(handle)]
        attach, opened = [], []
        seen_at = 0.0

        def stamp(_: bytes) -> bool:
            nonlocal seen_at
            seen_at = time.perf_counter()
            return True

        for cursor in random.Random(1).choices(cursors, k=ATTACHES):
            began = time.perf_counter()
            attach.append(await _first(handle, cursor) - began)
            began = time.perf_counter()
            await bare.pull(rig.bare, subject, stamp, stream=subjects.stream, start=cursor.sequence)
            opened.append(seen_at - began)
    return [
        Figure(
            *("replay of a finished exec", "lines/s", median(ours), 0.5, median(reference)),
            "bare pull that decodes and counts",
            True,
        ),
        Figure(
            *(
                "attach at a random offset, p50",
                "ms",
                percentile(attach, 0.5) * 1e3,
                2.0,
                percentile(opened, 0.5) * 1e3,
            ),
            "consumer create + first message",
            detail={"p99 ms": percentile(attach, 0.99) * 1e3},
        ),
    ]


async def _outputs(handle: ExecHandle):  # type: ignore[no-untyped-def]
    async with aclosing(handle.follow()) as items:
        async for item in items:
            if isinstance(item, Output):
                yield item


async def _first(handle: ExecHandle, cursor: Cursor) -> float:
    """When the first event behind the cursor was seen."""
    async with aclosing(handle.follow(cursor)) as items:
        async for _ in items:
            return time.perf_counter()
    raise AssertionError("nothing behind the cursor")
