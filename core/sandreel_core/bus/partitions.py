"""The whole log of some aggregates, over all partitions, for a table that is folded of it and kept up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

from sandreel_core.bus.port import Bus, CaughtUp, Missing, Stored
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.subjects import EventSubject, parse_event_subject, reel
from sandreel_core.errors import Malformed
from sandreel_core.log import Log

# Where an event stands, the event, and its sequence.
Fold = Callable[[EventSubject, Envelope, int], None]


class Partitions:
    """`run` reads every partition from its beginning and on. A body that is no event in order is logged and passed over; what the
    stream has no more is, too.

    fold    told of every event, those of one partition in order; raises nothing
    folded  called after every batch of them
    """

    def __init__(
        self,
        bus: Bus,
        partitions: int,
        aggregates: Sequence[str],
        fold: Fold,
        *,
        folded: Callable[[], None] = lambda: None,
        log: Log,
    ) -> None:
        self._bus = bus
        self._partitions = range(partitions)
        self._aggregates = tuple(aggregates)
        self._fold = fold
        self._folded = folded
        self._log = log
        self._behind = set(self._partitions)
        self._caught_up = asyncio.Event()

    @property
    def is_caught_up(self) -> bool:
        """Everything that was stored when `run` began has been folded."""
        return self._caught_up.is_set()

    async def caught_up(self) -> None:
        """Returns when that is so."""
        await self._caught_up.wait()

    async def run(self) -> None:
        """For ever. Raises NotFound where a stream is missing, Malformed where one was restored meanwhile (`Bus.follow`)."""
        async with asyncio.TaskGroup() as group:
            for partition in self._partitions:
                group.create_task(self._follow(partition), name=reel(partition))

    async def _follow(self, partition: int) -> None:
        filters = [f"evt.{partition}.*.*.{aggregate}" for aggregate in self._aggregates]
        async with aclosing(self._bus.follow(reel(partition), filters)) as items:
            async for item in items:
                if isinstance(item, CaughtUp):
                    self._behind.discard(partition)
                    if not self._behind:
                        self._caught_up.set()
                elif not isinstance(item, Missing):
                    for stored in item:
                        self._read(stored)
                    self._folded()

    def _read(self, stored: Stored) -> None:
        try:
            where = parse_event_subject(stored.subject)
            event = decode_event(stored.subject, stored.body)
        except Malformed as error:
            problem = str(error)
            self._log.warning("an event was skipped", subject=stored.subject, sequence=stored.sequence, problem=problem)
            return
        self._fold(where, event, stored.sequence)
