"""Many sessions at once, line by line: what is stored, then what comes, without a seam."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence

from sandreel_core.bus.execs import Snapshot, read_execs
from sandreel_core.bus.port import Bus
from sandreel_core.client.merge import Merge
from sandreel_core.client.tailing import Tailing, TailItem

# A line that has not ended is given out after so long, marked as what it is.
UNFINISHED_S = 1.0
_LOOK_UP_S = 0.2


async def tail(
    bus: Bus,
    filters: Mapping[int, Sequence[str]],
    tailing: Tailing,
    *,
    snapshots: Mapping[int, Snapshot],
    live: bool,
    stop: asyncio.Event | None,
) -> AsyncGenerator[list[TailItem], None]:
    """Batches of items (never empty), in the order of the log for each partition, as they come between partitions.

    filters    subjects, by partition
    snapshots  by partition: see `bus.execs.read_execs`
    stop       ends it as the end of the log does
    A line is judged whole. One that has not ended is judged as far as it has come, and given out if it is wanted; its
    rest then follows whatever it holds. At the end all that has not ended is given out as it is, if it is wanted.
    """
    sources = [
        read_execs(
            bus,
            partition,
            each,
            after=tailing.after[partition],
            snapshot=snapshots.get(partition),
            live=live,
            on_passed=tailing.passed,
        )
        for partition, each in filters.items()
    ]
    async with Merge(sources) as merge:
        while stop is None or not stop.is_set():
            try:
                found = await merge.next(_sooner(tailing.patience_s(), stop))
            except StopAsyncIteration:
                break
            items = tailing.overdue() if found is None else tailing.take(*found)
            if items:
                yield items
        if items := tailing.rest():
            yield items


def _sooner(patience_s: float | None, stop: asyncio.Event | None) -> float | None:
    """Who may be told to stop looks up now and then."""
    if stop is None:
        return patience_s
    return _LOOK_UP_S if patience_s is None else min(patience_s, _LOOK_UP_S)
