"""`make bench`: measure, print a table, keep it as JSON and as a plot under `bench/results`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from bench import (
    adapter,
    analyst,
    as_of,
    crowd,
    egress,
    gateway,
    latency,
    leases,
    masking,
    output,
    reading,
    rebuild,
    starting,
    tail,
    turn,
    views,
)
from bench.figure import Figure, keep, table
from bench.rig import Rig, rig

MEASURES: dict[str, Callable[[Rig], Awaitable[Figure | list[Figure]]]] = {
    "idle": starting.idle,
    "exec": starting.execs,
    "session": starting.sessions,
    "latency": latency.lines,
    "acknowledged": output.acknowledged,
    "viewed": output.viewed,
    "replay": reading.replayed,
    "stall": output.stalled,
    "copy": views.copied,
    "lag": views.lag,
    "as_of": as_of.as_of,
    "tail": tail.tail,
    "analyst": analyst.analyst,
    "rebuild": rebuild.rebuilt,
    "rebuild-lag": rebuild.lag_meanwhile,
    "crowd": crowd.crowd,
    "egress": egress.egress,
    "adapter": adapter.adapter,
    "turn": turn.turns,
    "masking": masking.masking,
    "gateway": gateway.gateway,
    "leases": leases.leases,
}


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("only", nargs="*", choices=[*MEASURES, []], help="these measurements, else all")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply every load (10: ten times the lines)")
    args = parser.parse_args()
    figures: list[Figure] = []
    async with rig(args.scale, lambda text: print(text, flush=True)) as here:
        for name in args.only or MEASURES:
            began = time.perf_counter()
            found = await MEASURES[name](here)
            found = found if isinstance(found, list) else [found]
            figures += found
            print(f"{name}  ({time.perf_counter() - began:.0f} s)\n{table(found)}\n", flush=True)
    print(table(figures))
    print(f"\nkept as {keep(figures)}")
    missed = [figure.name for figure in figures if not figure.reached]
    if missed:
        print(f"{len(missed)} of {len(figures)} figures missed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
