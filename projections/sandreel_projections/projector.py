"""Follows one partition of the log and keeps its views, for ever, through every outage of either server."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing
from dataclasses import dataclass

from sandreel_core.bus.port import Bus, CaughtUp, Missing, Stored, StreamState
from sandreel_core.contract.subjects import reel
from sandreel_core.errors import Conflict, Malformed, Misconfigured, NotFound, Unavailable
from sandreel_core.log import Log
from sandreel_core.metrics import Metrics
from sandreel_projections.batch import Batch, Views
from sandreel_projections.change import Change, instant
from sandreel_projections.measures import ProjectionMeasures
from sandreel_projections.writer import Reached, Writer

_RETRY_S = (0.05, 5.0)
# Lists of messages between reader and folds; `follow` itself has a few MB outstanding.
_QUEUE = 4


@dataclass(frozen=True, slots=True)
class Pace:
    """Bounds of one transaction, and how often the lag is noted."""

    max_events: int = 4000
    max_bytes: int = 8 << 20
    look_s: float = 2.0


class Projector:
    """The views of one partition. Several may run: one writes, the others stand by."""

    def __init__(
        self, bus: Bus, dsn: str, partition: int, *, pace: Pace = Pace(), measures: ProjectionMeasures | None = None
    ) -> None:
        self._bus = bus
        self._dsn = dsn
        self._partition = partition
        self._stream = reel(partition)
        self._pace = pace
        self._log = Log("projector")
        self._measures = measures or ProjectionMeasures(Metrics())
        self._careful_until = 0
        self.standby = asyncio.Event()
        self.leading = asyncio.Event()
        self.reached = 0

    async def run(self) -> None:
        """Raises Misconfigured when only an operator can help; everything else is tried again with jitter."""
        wait_s = _RETRY_S[0]
        while True:
            before = self.reached
            try:
                await self._once()
            except (Unavailable, Conflict, NotFound) as error:
                if self.reached > before:
                    wait_s = _RETRY_S[0]
                self._log.warning("views are interrupted", partition=self._partition, reason=str(error))
                self._measures.interrupted(self._partition)
            except Malformed as error:
                wait_s = _RETRY_S[0]
                self._log.warning("a batch was refused; going on one by one", reason=str(error))
            self.leading.clear()
            self._measures.not_leading(self._partition)
            await asyncio.sleep(wait_s * (0.5 + random.random()))  # noqa: S311 - jitter
            wait_s = min(wait_s * 2, _RETRY_S[1])

    async def _once(self) -> None:
        try:
            async with Writer.open(self._dsn, self._partition) as writer:
                self._measures.connected(self._partition)
                await writer.lead(self.standby)
                reached = await self._begin(writer)
                self.standby.clear()
                self.leading.set()
                self._measures.leading(self._partition, reached.sequence)
                self._log.info("views are led", partition=self._partition, sequence=reached.sequence)
                queue: asyncio.Queue[list[Stored] | Missing] = asyncio.Queue(_QUEUE)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._read(reached.sequence, queue))
                    group.create_task(self._look(writer, reached.epoch))
                    await self._write(writer, reached, queue, group)
        except BaseExceptionGroup as problems:
            raise _chosen(problems) from problems

    async def _begin(self, writer: Writer) -> Reached:
        state = await self._bus.state(self._stream)
        reached = await writer.reached()
        if reached is None:
            return await writer.begin(state.epoch)
        self.reached = reached.sequence
        self._check(state, reached.epoch, reached.sequence)
        return reached

    def _check(self, state: StreamState, epoch: str, sequence: int) -> None:
        """Raises Misconfigured when this is not the stream that the views were made from."""
        if state.epoch != epoch:
            raise Misconfigured(
                f"stream {self._stream} has epoch {state.epoch}, the views were made from epoch {epoch}: it was restored"
                " or replaced (see `sandreel streams restore`); empty the views and have them read again"
            )
        if state.last_sequence < sequence:
            raise Misconfigured(
                f"stream {self._stream} ends at {state.last_sequence}, the views have read up to {sequence}: it was"
                f" restored from an older copy; stop every role and run `sandreel streams restore {self._stream}`"
            )

    async def _read(self, after: int, queue: asyncio.Queue[list[Stored] | Missing]) -> None:
        items = self._bus.follow(self._stream, [f"evt.{self._partition}.>"], after=after)
        async with aclosing(items):
            async for item in items:
                if not isinstance(item, CaughtUp):
                    await queue.put(item)
        raise Unavailable(f"the reader of {self._stream} ended")

    async def _look(self, writer: Writer, epoch: str) -> None:
        """Where the stream ends, now and then: for the lag, and to notice that it was replaced."""
        while True:
            try:
                sequence = self.reached
                state = await self._bus.state(self._stream)
                self._check(state, epoch, sequence)
                last = None
                if state.last_sequence > sequence:
                    last = await self._bus.last(self._stream, f"evt.{self._partition}.>")
            except (Unavailable, NotFound):
                pass  # NATS is away: the reader waits, and the lag's age tells
            else:
                await writer.look(state.last_sequence, instant(last.time_ns) if last else None)
                self._measures.looked(self._partition, state.last_sequence, last.time_ns if last else None)
            await asyncio.sleep(self._pace.look_s)

    async def _write(
        self,
        writer: Writer,
        reached: Reached,
        queue: asyncio.Queue[list[Stored] | Missing],
        group: asyncio.TaskGroup,
    ) -> None:
        """While one batch is being written the next is read and folded."""
        views = Views(self._partition, reached.epoch)
        cursor = reached.sequence
        writing: tuple[asyncio.Task[None], Batch] | None = None
        backlog: list[Stored] = []
        while True:
            taken = await self._take(queue, backlog)
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
                writing = group.create_task(self._commit(writer, batch)), batch

    async def _take(self, queue: asyncio.Queue[list[Stored] | Missing], backlog: list[Stored]) -> list[Stored]:
        """What there is, within the bounds of a transaction; waits when there is nothing."""
        size = sum(len(stored.body) for stored in backlog)
        while not backlog or (
            not queue.empty() and len(backlog) < self._pace.max_events and size < self._pace.max_bytes
        ):
            item = await queue.get()
            if isinstance(item, Missing):
                self._log.warning(
                    "events are no longer in the stream", from_sequence=item.from_sequence, to_sequence=item.to_sequence
                )
                continue
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
        execs, sessions = views.unknown(changes)
        if execs or sessions:
            views.learn(*await writer.load(execs, sessions))

    async def _store(self, writer: Writer, batch: Batch) -> None:
        began = time.monotonic()
        await writer.commit(batch)
        self.reached = batch.sequence
        self._measures.committed(self._partition, batch, time.monotonic() - began)

    async def _commit(self, writer: Writer, batch: Batch) -> None:
        try:
            await self._store(writer, batch)
        except Malformed:
            # Something in it cannot be kept. From the cursor on, one event at a time, until it is found.
            self._careful_until = max(self._careful_until, batch.sequence)
            raise

    async def _commit_one(self, writer: Writer, views: Views, batch: Batch, stored: Stored) -> None:
        try:
            await self._store(writer, batch)
        except Malformed as error:
            # The rows that were folded from it are not to be used: begin with those that are stored.
            fresh = Views(self._partition, views.epoch)
            instead = Batch(before=batch.before, sequence=batch.sequence, at=batch.at, events=1)
            change = fresh.decode(stored, Batch(before=batch.before))
            if change is not None:
                await self._load(writer, fresh, [change])
            fresh.poison(stored, change, str(error), instead)
            self._log.warning("an event was quarantined", subject=stored.subject, sequence=stored.sequence)
            await self._store(writer, instead)
            views.reset()


def _chosen(problems: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one that says most: a bug before an operator's mistake before what passes."""
    leaves: list[BaseException] = []
    stack: list[BaseException] = [problems]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack += error.exceptions
        else:
            leaves.append(error)
    order = (Unavailable, NotFound, Conflict, Malformed, Misconfigured)
    return max(leaves, key=lambda error: order.index(type(error)) if type(error) in order else len(order))
