"""How old a line is when a viewer has it, at a person's rate and at a machine's, and how soon a terminal echoes."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import aclosing

import msgspec

from bench import bare
from bench.figure import Figure, median, percentile
from bench.rig import ORG, Rig
from sandreel_core.client import Output
from sandreel_core.contract.exec import Terminal

# Prints `count` bursts at `rate` a second; each line of a burst says when it was written.
TICKER = """
import os, sys, time
rate, count, burst = map(int, sys.argv[1:4]); due = time.perf_counter()
for _ in range(count):
    due += 1 / rate
    time.sleep(max(0.0, due - time.perf_counter()))
    os.write(1, (f'{time.time():.6f}'.ljust(99, '.') + chr(10)).encode() * burst)
"""
ECHOES = 200
ROUNDS = 5


async def _ours(rig: Rig, session: str, rate: int, count: int, burst: int) -> tuple[list[float], float]:
    """(age of each line when it was seen, seconds; lines a second that were reached)."""
    handle = await rig.client.exec(
        ORG, session, [sys.executable, "-I", "-c", TICKER, str(rate), str(count), str(burst)]
    )
    ages: list[float] = []
    began = 0.0
    async with aclosing(handle.follow()) as items:
        async for item in items:
            if isinstance(item, Output):
                began = began or time.time()
                ages += bare.ages(item.data)
    assert len(ages) == count * burst
    return ages, len(ages) / (time.time() - began)


async def _bare(rig: Rig, rate: int, count: int, burst: int, subject: str) -> list[float]:
    """The same lines, in blocks of the same size."""
    ages: list[float] = []
    decoder = msgspec.json.Decoder(bare.Block)

    def on_body(body: bytes) -> bool:
        ages.extend(bare.ages(decoder.decode(body).text))
        return len(ages) >= count * burst

    ticker = await bare.aside(rig.bare, "tick", str(rate), str(count), str(burst), subject)
    await bare.pull(rig.bare, subject, on_body)
    await ticker.wait()
    return ages


def _figures(
    name: str,
    ours: list[list[float]],
    reference: list[list[float]],
    detail: dict[str, float | str],
    beside: str = "bare timestamped publish → bounded pull",
) -> list[Figure]:
    def of(rounds: list[list[float]], share: float) -> float:
        return median([percentile(ages, share) for ages in rounds]) * 1e3

    return [
        Figure(f"{name}, p50", "ms", of(ours, 0.5), 1.5, of(reference, 0.5), beside, detail=detail),
        Figure(f"{name}, p99", "ms", of(ours, 0.99), 2.0, of(reference, 0.99), beside),
    ]


async def lines(rig: Rig) -> list[Figure]:
    """A line written → seen, at 50 and at 30,000 lines/s, and a terminal's echo; beside bare publish → pull."""
    session = await rig.session("latency")
    figures = []
    async with rig.without("projector"):
        for name, rate, count, burst in (
            ("one line at 50/s", 50, 250, 1),
            ("one line at 30,000/s", 1000, 3000, 30),
        ):
            # In turns, and the medians of each: a disk that hiccups once must not decide.
            ours, reference = [], []
            for turn in range(ROUNDS):
                ages, reached = await _ours(rig, session, rate, count, burst)
                ours.append(ages)
                reference.append(await _bare(rig, rate, count, burst, f"bench.tick.{rate}.{turn}"))
            figures += _figures(name, ours, reference, {"lines/s reached": reached})
        figures += await _echo(rig, session)
    return figures


async def _echo(rig: Rig, session: str) -> list[Figure]:
    """A key pressed → its echo seen, at a terminal that runs `cat`; beside a bare process that publishes each key."""
    handle = await rig.client.exec(ORG, session, ["cat"], tty=Terminal(), hold_stdin=True)
    ages: list[float] = []
    seen = asyncio.Event()

    async def watch() -> None:
        async with aclosing(handle.follow()) as items:
            async for item in items:
                if isinstance(item, Output):
                    seen.set()

    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(watch())
        for offset in range(ECHOES):
            seen.clear()
            began = time.perf_counter()
            await handle.keys(b"x", offset=offset)
            await seen.wait()
            ages.append(time.perf_counter() - began)
            await asyncio.sleep(0.01)
        await handle.cancel()
        await watcher
    reference = await _bare_echo(rig)
    return _figures("terminal echo", [ages[10:]], [reference[10:]], {}, "bare request → publish → bounded pull")


async def _bare_echo(rig: Rig) -> list[float]:
    key, subject = "benchkey", "bench.echo"
    echo = await bare.aside(rig.bare, "echo", key, subject)
    await bare.begun(echo)
    ages: list[float] = []
    seen = asyncio.Event()
    done = False

    def on_body(_: bytes) -> bool:
        seen.set()
        return done

    watcher = asyncio.ensure_future(bare.pull(rig.bare, subject, on_body))
    await asyncio.sleep(0.2)
    for number in range(ECHOES):
        done = number == ECHOES - 1
        seen.clear()
        began = time.perf_counter()
        await rig.bare.request(key, b"x", timeout=5)
        await seen.wait()
        ages.append(time.perf_counter() - began)
        await asyncio.sleep(0.01)
    await watcher
    echo.kill()
    await echo.wait()
    return ages
