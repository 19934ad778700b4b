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
from bench.rig import Lacking, Rig, rig

MAX_SCALE = 1000

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


def arguments() -> argparse.Namespace:
    """`only`, `scale`. Ends with 2 for what is no measurement and no scale."""
    what = "\n".join(f"  {name:14}{(measure.__doc__ or '').splitlines()[0]}" for name, measure in MEASURES.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
        epilog=f"measurements:\n{what}\n\n"
        "python -m bench.containers measures sessions in containers beside bare Docker, python -m bench.growth how the\n"
        "figures move. What is promised of each, and what was measured: docs/figures.md. Exit code 1: a figure was\n"
        "missed, or a measurement left out.",
    )
    parser.add_argument("only", nargs="*", metavar="MEASUREMENT", help="these, else all")
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="F", help="multiply every load (10: ten times the lines)"
    )
    args = parser.parse_args()
    if unknown := [name for name in args.only if name not in MEASURES]:
        parser.error(f"there is no measurement {', '.join(unknown)}: there are {', '.join(MEASURES)}")
    if not 0 < args.scale <= MAX_SCALE:
        parser.error(f"--scale {args.scale:g} is not above 0 and at most {MAX_SCALE}")
    return args


async def main() -> int:
    args = arguments()
    figures: list[Figure] = []
    left_out: list[str] = []
    async with rig(args.scale, lambda text: print(text, flush=True)) as here:
        for name in args.only or MEASURES:
            began = time.perf_counter()
            try:
                found = await MEASURES[name](here)
            except Lacking as lacking:
                left_out.append(name)
                print(f"{name}  left out: {lacking}\n", flush=True)
                continue
            found = found if isinstance(found, list) else [found]
            figures += found
            print(f"{name}  ({time.perf_counter() - began:.0f} s)\n{table(found)}\n", flush=True)
    print(table(figures))
    print(f"\nkept as {keep(figures)}")
    if left_out:
        print(f"left out: {', '.join(left_out)}")
    missed = [figure.name for figure in figures if not figure.reached]
    if missed:
        print(f"{len(missed)} of {len(figures)} figures missed: {', '.join(missed)}")
    return 1 if missed or left_out else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
