"""`sandreel tail` of many sessions that print at once: every line, and how old it is when it comes out."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time

import psutil

from bench.figure import Figure, percentile
from bench.rig import ORG, Rig
from bench.starting import runnerds
from sandreel_core.client import Ended
from sandreel_core.contract.exec import Exited

SESSIONS = 50
LINES_PER_S = 20_000
SECONDS = 10
BURSTS_PER_S = 8
# Bursts of lines at a steady pace; each line says when it was written. All begin at the same time. They end a while after their
# last line: 50 interpreters that end within an eighth of a second take two cores for longer than that, and it is the
# last lines that would tell of it, more than one in a hundred.
JOB = """
import os, sys, time
begin, rate, count, burst, phase = map(float, sys.argv[1:6]); number = 0
for i in range(int(count)):
    time.sleep(max(0.0, begin + (i + phase) / rate - time.time()))
    at = b'%.6f' % time.time()
    os.write(1, b''.join(b'%d ' % (number + j) + at + b' ' + b'.' * 60 + b'\\n' for j in range(int(burst))))
    number += int(burst)
time.sleep(2)
"""


# A line of `tail --json`, as far as it matters here.
LINE = re.compile(rb'{"type":"line",.*?"session":"([^"]*)",.*?"text":"([0-9]+) ([0-9.]+) .*?"stored_ns":([0-9]+)}')


async def tail(rig: Rig) -> list[Figure]:
    """`sandreel tail` of 50 sessions that print 20,000 lines/s: every line, and how old it is."""
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
    late_s = time.time() - begin
    watched = {
        "tail": [psutil.Process(process.pid)],
        "all runnerds": runnerds(rig),
        "NATS": [psutil.Process(rig.pid("nats"))],
        "the benchmark": [psutil.Process()],
    }
    before_s = {name: _cpu_s(each) for name, each in watched.items()}
    chunks = await _read(process.stdout, SESSIONS * count * burst)
    used_s = {name: _cpu_s(each) - before_s[name] for name, each in watched.items()}
    process.kill()
    await process.wait()
    used_s["all jobs"] = sum([await _job_s(rig, name) for name in names])
    lines, expected = 0, dict.fromkeys(names, 0)
    ages: list[float] = []
    before_log: list[float] = []
    behind_log: list[float] = []
    rest = b""
    for at, chunk in chunks:
        whole, _, rest = (rest + chunk).rpartition(b"\n")
        found = LINE.findall(whole)
        lines += whole.count(b"\n") + 1 if whole else 0
        for session, number, written, stored_ns in found:
            name = session.decode()
            assert int(number) == expected[name], "lost or out of order"
            expected[name] += 1
            written_s, stored_s = float(written), int(stored_ns) / 1e9
            ages.append(at - written_s)
            before_log.append(stored_s - written_s)
            behind_log.append(at - stored_s)
    assert lines == len(ages), "a line that is not understood"
    return Figure(
        *(f"tail of {SESSIONS} sessions at {LINES_PER_S:,} lines/s, written → seen, p99", "ms"),
        percentile(ages, 0.99) * 1e3,
        100,
        detail={
            "lines": float(len(ages)),
            "partitions": str(rig.client.partitions),
            "lines lost": float(SESSIONS * count * burst - len(ages)),
            "p50 ms": percentile(ages, 0.5) * 1e3,
            "written → stored, p50 ms": percentile(before_log, 0.5) * 1e3,
            "written → stored, p99 ms": percentile(before_log, 0.99) * 1e3,
            "stored → seen, p50 ms": percentile(behind_log, 0.5) * 1e3,
            "stored → seen, p99 ms": percentile(behind_log, 0.99) * 1e3,
            **{f"CPU of {name}, s": seconds for name, seconds in used_s.items()},
            "started late, s": max(0.0, late_s),
        },
    )


async def _read(stdout: asyncio.StreamReader, lines: int) -> list[tuple[float, bytes]]:
    """(when it came, what) until so many lines have come. Looked into afterwards, so that what measures takes next to
    nothing from what is measured; a line has come with the piece that ends it."""
    chunks = []
    while lines > 0:
        chunk = await stdout.read(1 << 18)
        assert chunk, "the tail has ended"
        chunks.append((time.time(), chunk))
        lines -= chunk.count(b"\n")
    return chunks


async def _job_s(rig: Rig, session: str) -> float:
    """CPU seconds of its job, which ends by itself."""
    async for item in rig.client.follow(ORG, session, "x"):
        if isinstance(item, Ended) and isinstance(item.event.data, Exited):
            return (item.event.data.cpu_ms or 0) / 1e3
    raise AssertionError("the job has not ended")


def _cpu_s(processes: list[psutil.Process]) -> float:
    return sum(each.cpu_times().user + each.cpu_times().system for each in processes)
