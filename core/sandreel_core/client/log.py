"""The log as it is stored: every message, also the repeats that readers of execs pass over."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

from sandreel_core.bus.port import Bus, CaughtUp, Item, Missing, Stored
from sandreel_core.client.merge import Merge
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.subjects import reel


@dataclass(frozen=True, slots=True)
class Logged:
    """One stored message and its cursor."""

    cursor: Cursor
    stored: Stored


@dataclass(frozen=True, slots=True)
class LogGap:
    """These sequences of a partition were asked for, and its stream holds them no more."""

    partition: int
    from_sequence: int
    to_sequence: int


LogItem: TypeAlias = Logged | LogGap


async def read_log(
    bus: Bus,
    filters: Mapping[int, Sequence[str]],
    epochs: Mapping[int, str],
    *,
    after: Mapping[int, int],
    until: Mapping[int, int],
    live: bool,
) -> AsyncGenerator[LogItem, None]:
    """The messages behind `after` up to `until` (sequences, by partition; none: no bound), in the order of each
    partition. Without `live` it ends with what was stored when it began, as it does at `until`."""
    numbers = list(filters)
    sources = [
        _up_to(
            bus.follow(reel(partition), filters[partition], after=after.get(partition, 0), live=live),
            until.get(partition),
        )
        for partition in numbers
    ]
    async with Merge(sources) as merge:
        while True:
            try:
                found = await merge.next()
            except StopAsyncIteration:
                return
            if found is None:
                continue
            partition, item = numbers[found[0]], found[1]
            if isinstance(item, Missing):
                yield LogGap(partition, item.from_sequence, item.to_sequence)
            elif isinstance(item, list):
                for stored in item:
                    yield Logged(Cursor(epochs[partition], partition, stored.sequence), stored)


async def _up_to(items: AsyncGenerator[Item, None], until: int | None) -> AsyncGenerator[Item, None]:
    async with aclosing(items):
        async for item in items:
            if until is None:
                yield item
            elif isinstance(item, list):
                within = [stored for stored in item if stored.sequence <= until]
                if within:
                    yield within
                if len(within) < len(item) or item[-1].sequence == until:
                    return
            elif isinstance(item, Missing) and item.from_sequence <= until:
                yield Missing(item.from_sequence, min(item.to_sequence, until))
            elif isinstance(item, CaughtUp) and item.sequence >= until:
                return
