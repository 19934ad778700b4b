"""Follows one source and keeps its views, for ever, through every outage of either server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sandreel_core.bus.port import Bus, Item, StreamState
from sandreel_core.errors import Conflict, Malformed, Misconfigured, NotFound, Unavailable
from sandreel_core.log import Log
from sandreel_core.metrics import Metrics
from sandreel_projections.change import instant
from sandreel_projections.database import SchemaMissing
from sandreel_projections.follower import PACE, Follower, Pace, chosen
from sandreel_projections.measures import ProjectionMeasures
from sandreel_projections.source import Source
from sandreel_projections.writer import Reached, Writer

_RETRY_S = (0.05, 5.0)
# Of several problems the one that says most: a bug before an operator's mistake before what passes.
_ORDER = (Unavailable, NotFound, Conflict, Malformed, SchemaMissing, Misconfigured)


class Projector:
    """The views of one source. Several may run: one writes, the others stand by."""

    def __init__(
        self, bus: Bus, dsn: str, source: Source, *, pace: Pace = PACE, measures: ProjectionMeasures | None = None
    ) -> None:
        self._bus = bus
        self._dsn = dsn
        self._source = source
        self._pace = pace
        self._log = Log("projector")
        self._measures = measures or ProjectionMeasures(Metrics())
        self._follower = Follower(source, pace, on_committed=self._measures.committed)
        self._led = False
        self.standby = asyncio.Event()
        self.leading = asyncio.Event()

    @property
    def reached(self) -> int:
        """Sequence up to which everything is in the views."""
        return self._follower.reached

    async def run(self) -> None:
        """Raises Misconfigured when only an operator can help; everything else is tried again with jitter."""
        wait_s = _RETRY_S[0]
        stream = self._source.stream
        while True:
            before = self.reached
            try:
                await self._once()
            except (Unavailable, Conflict, NotFound) as error:
                if self.reached > before:
                    wait_s = _RETRY_S[0]
                self._log.warning("views are interrupted", stream=stream, reason=str(error))
                self._measures.interrupted(stream)
            except SchemaMissing as error:
                if not self._led:
                    raise
                # It was there: a view was dropped, and a rebuild brings it back.
                self._log.warning("views are interrupted: a table is gone", stream=stream, reason=str(error))
                self._measures.interrupted(stream)
            except Malformed as error:
                wait_s = _RETRY_S[0]
                self._log.warning("a batch was refused; going on one by one", stream=stream, reason=str(error))
            self.leading.clear()
            self._measures.not_leading(stream)
            await asyncio.sleep(wait_s * (0.5 + random.random()))  # noqa: S311 - jitter
            wait_s = min(wait_s * 2, _RETRY_S[1])

    async def _once(self) -> None:
        try:
            async with Writer.open(self._dsn, self._source) as writer:
                self._measures.connected(self._source.stream)
                await writer.lead(self.standby)
                reached = await self._begin(writer)
                self._led = True
                self.standby.clear()
                self.leading.set()
                self._measures.leading(self._source.stream, reached.sequence)
                self._log.info("views are led", stream=self._source.stream, sequence=reached.sequence)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._look(writer, reached.epoch))
                    await self._follower.run(writer, reached, self._follow(reached.sequence))
        except BaseExceptionGroup as problems:
            raise chosen(problems, _ORDER) from problems

    async def _begin(self, writer: Writer) -> Reached:
        state = await self._bus.state(self._source.stream)
        reached = await writer.reached()
        if reached is None:
            reached = await writer.begin(state.epoch)
        self._follower.reached = reached.sequence
        check_stream(state, reached.epoch, reached.sequence)
        return reached

    async def _follow(self, after: int) -> AsyncGenerator[Item, None]:
        async with aclosing(self._bus.follow(self._source.stream, self._source.filters, after=after)) as items:
            async for item in items:
                yield item
        raise Unavailable(f"the reader of {self._source.stream} ended")

    async def _look(self, writer: Writer, epoch: str) -> None:
        """Where the stream ends, now and then: for the lag, and to notice that it was replaced."""
        stream, [every, *_] = self._source.stream, self._source.filters
        while True:
            try:
                sequence = self.reached
                state = await self._bus.state(stream)
                check_stream(state, epoch, sequence)
                last = await self._bus.last(stream, every) if state.last_sequence > sequence else None
            except (Unavailable, NotFound):
                pass  # NATS is away: the reader waits, and the lag's age tells
            else:
                await writer.look(state.last_sequence, instant(last.time_ns) if last else None)
                self._measures.looked(self._source.stream, state.last_sequence, last.time_ns if last else None)
            await asyncio.sleep(self._pace.look_s)


def check_stream(state: StreamState, epoch: str, sequence: int) -> None:
    """Raises Misconfigured when this is not the stream that the views were made from."""
    if state.epoch != epoch:
        raise Misconfigured(
            f"stream {state.name} has epoch {state.epoch}, the views were made from epoch {epoch}: it was restored"
            " or replaced (see `sandreel streams restore`); `sandreel projections rebuild --accept-uncompared` has them read again"
        )
    if state.last_sequence < sequence:
        raise Misconfigured(
            f"stream {state.name} ends at {state.last_sequence}, the views have read up to {sequence}: it was"
            f" restored from an older copy; stop every role and run `sandreel streams restore {state.name}`"
        )
