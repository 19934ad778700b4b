"""How the figures move when lines and viewers grow ten times, and sessions four times: `python -m bench.growth`.

Nothing is held against a target here: each figure stands beside itself, and its reference too.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from bench import crowd, output, reading, views
from bench.figure import Figure, columns, number
from bench.rig import Rig, rig

LINES = 10
VIEWERS = 10
SESSIONS = 4

Measure = Callable[[Rig], Awaitable[Figure | list[Figure]]]
GROWN_BY_LINES: tuple[Measure, ...] = (output.acknowledged, output.viewed, reading.replayed, views.copied, views.lag)


async def _figures(measure: Awaitable[Figure | list[Figure]]) -> list[Figure]:
    found = await measure
    return found if isinstance(found, list) else [found]


def _rows(what: str, before: list[Figure], after: list[Figure]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for one, other in zip(before, after, strict=True):
        pairs = [(one.name, one.unit, one.ours, other.ours)]
        if one.reference and other.reference:
            pairs.append(("  its reference", one.unit, one.reference, other.reference))
        pairs += [
            (f"  {name}", "", value, grown)
            for name, value in one.detail.items()
            if isinstance(value, float) and isinstance(grown := other.detail.get(name), float)
        ]
        for name, unit, value, grown in pairs:
            factor = f"{grown / value:.2f} ×" if value else "-"
            rows.append((name, what, f"{number(value)} {unit}".strip(), f"{number(grown)} {unit}".strip(), factor))
    return rows


async def main() -> int:
    rows: list[tuple[str, ...]] = [("figure", "grown", "before", "after", "moved")]
    async with rig(1.0, lambda text: print(text, flush=True)) as here:
        for measure in GROWN_BY_LINES:
            here.scale = 1.0
            before = await _figures(measure(here))
            here.scale = float(LINES)
            rows += (more := _rows(f"lines × {LINES}", before, await _figures(measure(here))))
            print(columns(more), flush=True)
        here.scale = 1.0
        few = await crowd.crowd(here)
        for what, many in (
            (f"viewers × {VIEWERS}", crowd.crowd(here, viewers=VIEWERS * crowd.VIEWERS)),
            (f"sessions × {SESSIONS}", crowd.crowd(here, sessions=SESSIONS * crowd.SESSIONS)),
        ):
            rows += (more := _rows(what, few, await many))
            print(columns(more), flush=True)
    print("\n" + columns(rows))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
