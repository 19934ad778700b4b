"""From the messages of one source to its rows: what the projector does for ever, and a rebuild up to a place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from sandreel_core.bus.port import CaughtUp, Item, Missing, Stored
from sandreel_core.errors import Malformed
from sandreel_core.log import Log
from sandreel_projections.batch import Batch, Views
from sandreel_projections.change import Change, instant
from sandreel_projections.source import Source
from sandreel_projections.writer import Reached, Writer

# Lists of messages between reader and folds; `follow` itself has a few MB outstanding.
_QUEUE = 4

OnMissing = Callable[[Missing], Awaitable[None]]
# (stream, what was written, seconds that it took)
OnCommitted = Callable[[str, Batch, float], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """Bounds of one transaction, and how often the lag is noted."""

    max_events: int = 4000
    max_bytes: int = 8 << 20
    look_s: float = 2.0


PACE = Pace()


class Follower:
    """Writes what a reader yields. `reached` is the sequence of the last transaction that was committed; `events` and
    `bytes` count what was committed since this object was made."""

    def __init__(
        self,
        source: Source,
        pace: Pace,
        *,
        on_missing: OnMissing | None = None,
        on_committed: OnCommitted = lambda stream, batch, took_s: None,
    ) -> None:
        self._source = source
        self._pace = pace
        self._on_missing = on_missing
        self._on_committed = on_committed
        self._log = Log("projector")
        self._careful_until = 0
        self.reached = 0
        self.events = 0
        self.bytes = 0

    async def run(self, writer: Writer, reached: Reached, items: AsyncGenerator[Item, None]) -> None:
        """Until the reader ends and all that it gave is committed. While one batch is written the next is folded.

        Raises what reader and writer raise; a Malformed means: open the writer again and go on from its cursor.
        """
        queue: asyncio.Queue[list[Stored] | None] = asyncio.Queue(_QUEUE)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(items, queue))
            await self._write(writer, reached, queue, group)

    async def _read(self, items: AsyncGenerator[Item, None], queue: asyncio.Queue[list[Stored] | None]) -> None:
        async with aclosing(items):
            async for item in items:
                if isinstance(item, Missing):
                    await self._missing(item)
                elif not isinstance(item, CaughtUp):
                    await queue.put(item)
        await queue.put(None)

    async def _missing(self, item: Missing) -> None:
        if self._on_missing is not None:
            await self._on_missing(item)
        elif not self._source.forgets:
            self._log.warning(
                "events are no longer in the stream", from_sequence=item.from_sequence, to_sequence=item.to_sequence
            )

    async def _write(
        self, writer: Writer, reached: Reached, queue: asyncio.Queue[list[Stored] | None], group: asyncio.TaskGroup
    ) -> None:
        views = Views(self._source, reached.epoch)
        cursor = reached.sequence
        writing: tuple[asyncio.Task[None], Batch] | None = None
        backlog: list[Stored] = []
        while True:
            taken = await self._take(queue, backlog)
            if taken is None:
                break
            taken = [stored for stored in taken if stored.sequence > cursor]
            if not taken:
                continue
            careful = cursor < self._careful_until
            if careful:
                taken, rest = taken[:1], taken[1:]
                backlog[:0] = rest
            unwritten = writing[1] if writing and not writing[0].done() else None
            views.forget(unwritten)
            batch = await self._fold(writer, views, cursor, taken)
            if writing:
                await writing[0]
            cursor = batch.sequence
            if careful:
                await self._commit_one(writer, views, batch, taken[0])
                writing = None
            else:
                writing = group.create_task(self._commit(writer, batch, taken)), batch
        if writing:
            await writing[0]

    async def _take(self, queue: asyncio.Queue[list[Stored] | None], backlog: list[Stored]) -> list[Stored] | None:
        """What there is, within the bounds of a transaction; waits when there is nothing. None at the end."""
        size = sum(len(stored.body) for stored in backlog)
        while not backlog or (
            not queue.empty() and len(backlog) < self._pace.max_events and size < self._pace.max_bytes
        ):
            item = await queue.get()
            if item is None:
                queue.put_nowait(None)  # to be met again when the backlog is empty
                if not backlog:
                    return None
                break
            backlog += item
            size += sum(len(stored.body) for stored in item)
        taken, backlog[:] = backlog[: self._pace.max_events], backlog[self._pace.max_events :]
        return taken

    async def _fold(self, writer: Writer, views: Views, cursor: int, taken: list[Stored]) -> Batch:
        batch = Batch(before=cursor, sequence=taken[-1].sequence, at=instant(taken[-1].time_ns), events=len(taken))
        pairs = [(stored, change) for stored in taken if (change := views.decode(stored, batch)) is not None]
        await self._load(writer, views, [change for _, change in pairs])
        for stored, change in pairs:
            views.apply(stored, change, batch)
        return batch

    async def _load(self, writer: Writer, views: Views, changes: list[Change]) -> None:
        if wanted := views.unknown(changes):
            views.learn(await writer.load(wanted))

    async def _store(self, writer: Writer, batch: Batch) -> None:
        began = time.monotonic()
        await writer.commit(batch)
        self._on_committed(self._source.stream, batch, time.monotonic() - began)

    async def _commit(self, writer: Writer, batch: Batch, taken: list[Stored]) -> None:
        try:
            await self._store(writer, batch)
        except Malformed:
            # Something in it cannot be kept. From the cursor on, one event at a time, until it is found.
            self._careful_until = max(self._careful_until, batch.sequence)
            raise
        self._count(taken)

    async def _commit_one(self, writer: Writer, views: Views, batch: Batch, stored: Stored) -> None:
        try:
            await self._store(writer, batch)
        except Malformed as error:
            # The rows that were folded from it are not to be used: begin with those that are stored.
            fresh = Views(self._source, views.epoch)
            instead = Batch(before=batch.before, sequence=batch.sequence, at=batch.at, events=1)
            change = fresh.decode(stored, Batch(before=batch.before))
            if change is not None:
                await self._load(writer, fresh, [change])
            fresh.poison(stored, change, str(error), instead)
            self._log.warning("an event was quarantined", subject=stored.subject, sequence=stored.sequence)
            await self._store(writer, instead)
            views.reset()
        self._count([stored])

    def _count(self, written: list[Stored]) -> None:
        self.events += len(written)
        self.bytes += sum(len(stored.body) for stored in written)
        self.reached = written[-1].sequence


def chosen(problems: BaseExceptionGroup[BaseException], order: tuple[type[BaseException], ...]) -> BaseException:
    """Of several the one that says most: what is not in `order` (a bug), else the last in it."""
    leaves: list[BaseException] = []
    stack: list[BaseException] = [problems]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack += error.exceptions
        else:
            leaves.append(error)
    return max(leaves, key=lambda error: order.index(type(error)) if type(error) in order else len(order))
