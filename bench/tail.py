"""`sandreel tail` of many sessions that print at once: every line, and how old it is when it comes out."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import msgspec
import psutil

from bench.figure import Figure, percentile
from bench.rig import ORG, Rig
from bench.starting import runnerds

SESSIONS = 50
LINES_PER_S = 20_000
SECONDS = 10
BURSTS_PER_S = 8
# Bursts of lines at a steady pace; each line says when it was written. All begin at the same time.
JOB = """
import os, sys, time
begin, rate, count, burst, phase = map(float, sys.argv[1:6]); number = 0
for i in range(int(count)):
    time.sleep(max(0.0, begin + (i + phase) / rate - time.time()))
    at = b'%.6f' % time.time()
    os.write(1, b''.join(b'%d ' % (number + j) + at + b' ' + b'.' * 60 + b'\\n' for j in range(int(burst))))
    number += int(burst)
"""


class Seen(msgspec.Struct):
    session: str
    text: str
    stored_ns: int


async def tail(rig: Rig) -> list[Figure]:
    async with rig.without("projector"):
        return [await _tail(rig)]


async def _tail(rig: Rig) -> Figure:
    """The command in a process of its own, from its standard output."""
    limit = asyncio.Semaphore(8)

    async def make(number: int) -> str:
        async with limit:
            return await rig.session(f"tail-{number}")

    names = await asyncio.gather(*(make(number) for number in range(SESSIONS)))
    burst = max(1, LINES_PER_S // SESSIONS // BURSTS_PER_S)
    count = SECONDS * BURSTS_PER_S
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sandreel_core.cli", "tail", *names, "--org", ORG, "--json"),
        stdout=asyncio.subprocess.PIPE,
        env=dict(os.environ) | {"SANDREEL_CONFIG": str(rig.stack.client)},
        limit=1 << 20,
    )
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline())["type"] == "caught_up"
    begin = time.time() + 15

    async def start(name: str, number: int) -> None:
        async with limit:
            words = [begin, BURSTS_PER_S, count, burst, number / SESSIONS]
            await rig.client.exec(ORG, name, [sys.executable, "-I", "-c", JOB, *map(str, words)], exec="x")

    await asyncio.gather(*(start(name, number) for number, name in enumerate(names)))
    before_s = _cpu_s(runnerds(rig))
    late_s = time.time() - begin
    ages: list[float] = []
    stored_ages: list[float] = []
    expected = dict.fromkeys(names, 0)
    decode = msgspec.json.Decoder(Seen).decode
    rest = b""
    while len(ages) < SESSIONS * count * burst:
        *lines, rest = (rest + await process.stdout.read(1 << 18)).split(b"\n")
        now = time.time()
        for line in lines:
            seen = decode(line)
            number, written, _ = seen.text.split()
            assert int(number) == expected[seen.session], "lost or out of order"
            expected[seen.session] += 1
            ages.append(now - float(written))
            stored_ages.append(now - seen.stored_ns / 1e9)
    used_s = _cpu_s([psutil.Process(process.pid)])
    recorded_s = _cpu_s(runnerds(rig)) - before_s
    process.kill()
    await process.wait()
    return Figure(
        *(f"tail of {SESSIONS} sessions at {LINES_PER_S:,} lines/s, written → seen, p99", "ms"),
        percentile(ages, 0.99) * 1e3,
        100,
        detail={
            "lines": float(len(ages)),
            "lines lost": float(SESSIONS * count * burst - sum(expected.values())),
            "p50 ms": percentile(ages, 0.5) * 1e3,
            "stored → seen, p50 ms": percentile(stored_ages, 0.5) * 1e3,
            "stored → seen, p99 ms": percentile(stored_ages, 0.99) * 1e3,
            "CPU of tail, s": used_s,
            "CPU of all runnerds, s": recorded_s,
            "started late, s": max(0.0, late_s),
        },
    )


def _cpu_s(processes: list[psutil.Process]) -> float:
    return sum(each.cpu_times().user + each.cpu_times().system for each in processes)
