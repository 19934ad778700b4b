"""Many at once: sessions, execs, viewers. Nothing may be lost, and no viewer may see a seam."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import aclosing

import psutil

from bench.figure import Figure
from bench.rig import ORG, Rig
from bench.starting import runnerds
from sandreel_core.client import Ended, ExecHandle, Output
from sandreel_core.client.items import CaughtUp

SESSIONS = 50
EXECS_EACH = 4
VIEWERS = 20
LINES_EACH = 5000
# Prints its lines in bursts over a few seconds, so that all of them run at the same time.
JOB = """
import sys, time
n = int(sys.argv[1])
for i in range(n):
    print(f'{sys.argv[2]} {i}')
    if i % (n // 20) == 0: sys.stdout.flush(); time.sleep(0.2)
"""


async def _view(handle: ExecHandle, lines: int, *, breaks: bool) -> None:
    """Every line in order; `breaks`: leave in the middle and come back at the cursor."""
    seen, cursor, data = 0, None, b""
    while True:
        async with aclosing(handle.follow(cursor)) as items:
            async for item in items:
                if isinstance(item, CaughtUp):
                    continue
                cursor = item.cursor
                if isinstance(item, Output):
                    data += item.data
                    seen += 1
                if isinstance(item, Ended):
                    assert item.exit_code == 0
                    expected = "".join(f"{handle.id} {i}\n" for i in range(lines)).encode()
                    assert data == expected, "bytes differ"
                    return
                if breaks and seen % 50 == 25:
                    seen += 1
                    break


async def crowd(rig: Rig, sessions: int = SESSIONS, viewers: int = VIEWERS) -> list[Figure]:
    """50 sessions, 200 execs and 20 viewers at once: what is lost or out of order, and what each role needs."""
    count = sessions
    lines = LINES_EACH
    began = time.perf_counter()
    limit = asyncio.Semaphore(8)

    async def make(number: int) -> str:
        async with limit:
            return await rig.session(f"crowd-{count}-{viewers}-{number}")

    names = await asyncio.gather(*(make(number) for number in range(count)))
    created_s = time.perf_counter() - began
    began = time.perf_counter()

    async def start(session: str, number: int) -> ExecHandle:
        exec_id = f"{session}-{number}"
        argv = [sys.executable, "-I", "-c", JOB, str(lines), exec_id]
        return await rig.client.exec(ORG, session, argv, exec=exec_id)

    handles = await asyncio.gather(*(start(s, n) for s in names for n in range(EXECS_EACH)))
    viewed = [handles[number * len(handles) // viewers] for number in range(viewers)]
    await asyncio.gather(*(_view(h, lines, breaks=number % 2 == 0) for number, h in enumerate(viewed)))
    # Whoever comes later sees the same.
    for handle in handles:
        await _view(handle, lines, breaks=False)
    took_s = time.perf_counter() - began
    figures = [
        Figure(
            *(f"{count} sessions, {len(handles)} execs, {len(viewed)} viewers: lost or out of order", "lines", 0, 0),
            detail={
                "lines in all": float(lines * len(handles)),
                "lines/s read": lines * (len(handles) + len(viewed)) / took_s,
                "sessions created/s": count / created_s,
                **_memory(rig),
            },
        )
    ]
    await asyncio.gather(*(_destroy(rig, name, limit) for name in names))
    return figures


async def _destroy(rig: Rig, session: str, limit: asyncio.Semaphore) -> None:
    async with limit:
        await rig.client.destroy(ORG, session)


def _memory(rig: Rig) -> dict[str, float | str]:
    used: dict[str, float | str] = {
        f"{name} MB": psutil.Process(part.pid).memory_info().rss / 1e6
        for name, part in rig.stack.parts.items()
        if part.pid is not None
    }
    found = runnerds(rig)
    used["runnerd MB (mean)"] = sum(p.memory_info().rss for p in found) / max(1, len(found)) / 1e6
    return used
