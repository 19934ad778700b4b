"""How long it takes to begin: an exec, a session; and what a runnerd that does nothing costs."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import aclosing
from pathlib import Path

import psutil

from bench.bare import STREAM, address
from bench.figure import Figure, median, percentile
from bench.rig import ORG, Rig
from sandreel_core.client import Changed

EXECS = 60
SESSIONS = 15
IDLE_S = 20.0
# Before each start and before each reference: the first sync of a disk that rested takes longer than the next.
QUIET_S = 0.05

# nats-py imports aiohttp where the gateway has it installed; where sessions run it is not.
_BARE = "import sys; sys.modules['aiohttp'] = None\n"
CONNECT = (
    _BARE
    + """
import asyncio, json, nats, msgspec
async def main():
    netloc, creds = json.loads(sys.stdin.read())
    client = await nats.connect(f'nats://{netloc}', user_credentials=creds)
    await client.flush(); print('up', flush=True); await client.close()
asyncio.run(main())
"""
)
IMPORTS = _BARE + "import nats, msgspec, time; print('up', flush=True); time.sleep(600)"


async def execs(rig: Rig) -> Figure:
    """`exec.start` of ["true"] published → `exec.started` seen, beside a subprocess and three awaited appends."""
    session = await rig.session("starting")
    ours, reference = [], []
    js = rig.bare.jetstream()
    async with rig.without("projector"):
        for number in range(EXECS):
            exec_id = f"true-{number}"
            watcher = asyncio.ensure_future(_started(rig, session, exec_id))
            await asyncio.sleep(QUIET_S)
            began = time.perf_counter()
            await rig.client.exec(ORG, session, ["true"], exec=exec_id)
            ours.append(await watcher - began)
            await asyncio.sleep(QUIET_S)
            began = time.perf_counter()
            await js.publish("bench.start", b"x" * 300, stream=STREAM)
            await js.publish("bench.start", b"x" * 300, stream=STREAM)
            child = await asyncio.create_subprocess_exec("true")
            await js.publish("bench.start", b"x" * 300, stream=STREAM)
            reference.append(time.perf_counter() - began)
            await child.wait()
    return Figure(
        *("exec.start → exec.started, p50", "ms", percentile(ours, 0.5) * 1e3, 1.5, percentile(reference, 0.5) * 1e3),
        "asyncio subprocess + three awaited appends",
        detail={"p99 ms": percentile(ours, 0.99) * 1e3},
    )


async def _started(rig: Rig, session: str, exec_id: str) -> float:
    """When a viewer that was there before the exec saw it start."""
    async with aclosing(rig.client.follow(ORG, session, exec_id)) as items:
        async for item in items:
            if isinstance(item, Changed) and item.event.type == "exec.started":
                return time.perf_counter()
    raise AssertionError("no exec.started")


async def sessions(rig: Rig) -> Figure:
    """Create → ready, beside a bare Python that imports nats-py and connects."""
    ours, reference = [], []
    for number in range(SESSIONS):
        began = time.perf_counter()
        session = await rig.session(f"ready-{number}")
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", CONNECT), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(address(rig.bare))
        child.stdin.close()
        await child.stdout.readline()
        reference.append(time.perf_counter() - began)
        await child.wait()
        await rig.client.destroy(ORG, session)
    return Figure(
        *("session create → ready, p50", "ms", median(ours) * 1e3, 1.5, median(reference) * 1e3),
        "bare Python that imports nats-py and connects",
    )


def runnerds(rig: Rig) -> list[psutil.Process]:
    """Every runnerd of this stack."""
    marker = rig.stack.place.keys().installation
    found = []
    for process in psutil.process_iter():
        try:
            ours = marker in process.environ().get("SANDREEL_BOOT", "")
            if ours and process.name().startswith("python") and "sandreel_runnerd" in process.cmdline():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def private_mb(process: psutil.Process) -> float:
    """Resident memory, MB."""
    return process.memory_info().rss / 1e6


async def idle(rig: Rig) -> list[Figure]:
    """A session in which nothing runs: memory and share of a core; beside a bare Python."""
    for process in runnerds(rig):
        process.status()
    session = await rig.session("idle")
    subjects = rig.client.subjects(ORG, session)
    runnerd = next(p for p in runnerds(rig) if f"/{subjects.session}/" in p.environ()["SANDREEL_BOOT"])
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", IMPORTS, stdout=asyncio.subprocess.PIPE, cwd=Path("/")
    )
    assert child.stdout is not None
    await child.stdout.readline()
    before = sum(runnerd.cpu_times()[:2])
    await asyncio.sleep(IDLE_S)
    share = (sum(runnerd.cpu_times()[:2]) - before) / IDLE_S * 100
    ours, reference = private_mb(runnerd), private_mb(psutil.Process(child.pid))
    child.kill()
    await child.wait()
    return [
        Figure("runnerd idle, resident", "MB", ours, 1.3, reference, "bare Python with nats-py and msgspec"),
        Figure("runnerd idle, resident (absolute)", "MB", ours, 45),
        Figure("runnerd idle, share of a core", "%", share, 0.5),
    ]
