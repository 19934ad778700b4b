"""Makes the views again from the log, beside the live ones; compares; puts them in their place.

Everything is resumable: what a rebuild is stands in its schema (`schemas.Mark`, `cursors`), so that one which was
killed anywhere is gone on with by the same command. The live projector is never stopped.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path

from sandreel_core.bus.port import Bus, StreamState
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.subjects import reel
from sandreel_core.errors import Malformed, Misconfigured, NotFound, Unavailable
from sandreel_projections import schemas, tables
from sandreel_projections.database import Connection, connected, translated
from sandreel_projections.follower import Pace
from sandreel_projections.history import Archived, Lineage, lineage, listed
from sandreel_projections.order import Order, Outcome, check_place, selected
from sandreel_projections.progress import Pacer
from sandreel_projections.projector import check_stream
from sandreel_projections.replay import Replay
from sandreel_projections.report import Report
from sandreel_projections.schemas import FRESH, Mark
from sandreel_projections.source import Source
from sandreel_projections.swap import live_cursors, standing_still, swap_schema, swap_tables
from sandreel_projections.tables import SCHEMA
from sandreel_projections.unfinished import MakeSchema, alone, archive_files, begin
from sandreel_projections.verdict import is_of, judge
from sandreel_projections.writer import Reached, ourselves

# Smaller transactions than the live projector's: its own wait behind them for the same disk and processor.
GENTLE = Pace(max_events=4000, max_bytes=4 << 20)
# So near to the live views that the rest is read while they are looked at, or stand still: two transactions.
NEAR_EVENTS = 8000
# How often the live views are asked to stand still before it is given up: somebody reads them all the time.
_SWAPS = 30
# While they stand still no view moves on: what is left to read is NEAR_EVENTS at most, a matter of a second or two.
_STILL_S = 10.0
_RETRY_S = (0.2, 5.0)
_ANEW = 3
_SHOW_S = 0.5


class _Anew(Exception):
    """What was rebuilt is of no use any more; the text says why."""


class Rebuild:
    def __init__(
        self,
        bus: Bus,
        dsn: str,
        sources: Sequence[Source],
        make_schema: MakeSchema,
        report: Report,
        order: Order,
        *,
        pace: Pace = GENTLE,
    ) -> None:
        self._bus = bus
        self._dsn = dsn
        self._sources = sources
        self._make_schema = make_schema
        self._report = report
        self._order = order
        self._pace = pace
        self._moved_s = time.monotonic()

    def _moved(self) -> None:
        self._moved_s = time.monotonic()

    async def run(self) -> Outcome:
        """Raises Misconfigured for what an operator has to mend, Malformed for an order that cannot be followed,
        Conflict when another rebuild runs, Unavailable when a server stays away: then the same order goes on."""
        wait_s, anew = _RETRY_S[0], 0
        self._moved_s = time.monotonic()
        while True:
            try:
                return await self._attempt()
            except _Anew as why:
                anew += 1
                if anew > _ANEW:
                    raise Unavailable(f"it was begun anew {_ANEW} times and still {why}; try again later") from why
                self._report.say("begun_anew", f"begins anew: {why}", why=str(why))
                async with connected(self._dsn, f"rebuild {ourselves()}") as connection:
                    await alone(connection)
                    await schemas.drop(connection, FRESH)
            except (Unavailable, NotFound) as error:
                if time.monotonic() - self._moved_s > self._order.patience_s:
                    raise Unavailable(
                        f"{error}; what is rebuilt is kept, and the same command goes on with it"
                    ) from error
                self._report.say("waits", f"waits: {error}", reason=str(error))
                await asyncio.sleep(wait_s * (0.5 + random.random()))  # noqa: S311 - jitter
                wait_s = min(wait_s * 2, _RETRY_S[1])

    async def _attempt(self) -> Outcome:
        async with connected(self._dsn, f"rebuild {ourselves()}") as control, AsyncExitStack() as stack:
            await alone(control)
            states = {source.stream: await self._bus.state(source.stream) for source in self._sources}
            check_place(self._order.to, states)
            await self._check(control, states)
            lineages = {stream: lineage(state) for stream, state in states.items()}
            epochs = {stream: state.epoch for stream, state in states.items()}
            mark = await begin(control, self._order, self._sources, epochs, lineages, self._make_schema, self._report)
            replays = await self._replays(control, mark, lineages, stack)
            if self._order.to is not None:
                return await self._up_to(control, replays, self._order.to)
            if mark.tables:
                await self._check_views(control, replays)
            async with self._shown(replays, "rebuilds"):
                await self._approach(control, replays)
                verdict = await judge(self._dsn, replays, self._report, whole=not mark.tables, moved=self._moved)
            await self._check_log(mark, lineages)
            swapped = await self._swap(control, mark, replays) if verdict.lets(self._order) else None
            none = (
                ""
                if verdict.compared or verdict.uncompared
                else "there are no live rows of it: nothing to compare with"
            )
            return Outcome(
                *(verdict.compared, none, swapped, verdict.uncompared, verdict.only_live, verdict.only_rebuilt)
            )

    # -- before

    async def _check(self, control: Connection, states: dict[str, StreamState]) -> None:
        """Raises Misconfigured for a stream that is behind the views."""
        for stream, reached in (await live_cursors(control)).items():
            if stream in states and states[stream].epoch == reached.epoch:
                check_stream(states[stream], reached.epoch, reached.sequence)

    async def _check_views(self, control: Connection, replays: Sequence[Replay]) -> None:
        """Raises Misconfigured, before anything is read, for views that could not be swapped one by one."""
        try:
            refuse_unread(await live_cursors(control), replays)
        except Misconfigured:
            await schemas.drop(control, FRESH)
            raise

    async def _check_log(self, mark: Mark, lineages: Mapping[str, Lineage]) -> None:
        """What an archiver has purged before we came to it, we have not read; nor what stands in a new stream."""
        if archive_files(self._order.archive, lineages) != mark.archive:
            raise _Anew("execs were archived while it read")
        if {stream: (await self._bus.state(stream)).epoch for stream in mark.epochs} != mark.epochs:
            raise _Anew("a stream was restored or replaced while it read")

    async def _replays(
        self, control: Connection, mark: Mark, lineages: Mapping[str, Lineage], stack: AsyncExitStack
    ) -> list[Replay]:
        fresh = await live_cursors(control, FRESH)
        made = []
        for source in self._sources:
            chosen = selected(source, mark.tables)
            if not (chosen.folds or chosen.appends):
                continue
            reached, epoch = fresh.get(source.stream), mark.epochs[source.stream]
            archived = None
            if found := listed(self._order.archive, source.stream, lineages[source.stream]):
                directory = self._order.archive or Path()
                after = 0 if reached is None else reached.sequence
                archived = await stack.enter_async_context(Archived.of(directory, found, after))
            replay = Replay(
                self._bus, self._dsn, chosen, epoch, archived, self._report, self._pace, self._order.patience_s
            )
            replay.begin_at(reached)
            made.append(replay)
        return made

    # -- reading

    async def _targets(self, live: dict[str, Reached], replay: Replay) -> tuple[int, datetime | None]:
        """Where the live views are; where they are not of this stream, its end."""
        reached = live.get(replay.source.stream)
        if reached is not None and is_of(live, replay):
            return reached.sequence, reached.at
        return (await self._bus.state(replay.source.stream)).last_sequence, None

    async def _approach(self, control: Connection, replays: Sequence[Replay]) -> None:
        while True:
            live = await live_cursors(control)
            targets = [(replay, *await self._targets(live, replay)) for replay in replays]
            near = sum(sequence - replay.reached for replay, sequence, _ in targets) <= NEAR_EVENTS
            for replay, sequence, at in targets:
                await replay.to(sequence, at)
            if near:
                return

    @asynccontextmanager
    async def _shown(self, replays: Sequence[Replay], what: str) -> AsyncGenerator[None, None]:
        """Progress, for as long as the context is open."""
        task = asyncio.create_task(self._show(replays, what))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _show(self, replays: Sequence[Replay], what: str) -> None:
        pacer, done = Pacer(), -1
        while True:
            with suppress(Unavailable, NotFound):
                remaining = sum([await replay.remaining() for replay in replays])
                before, done = done, sum(replay.events for replay in replays)
                now_s = time.monotonic()
                if done != before:
                    self._moved_s = now_s
                self._report.progress(what, pacer.tell(now_s, done, remaining, sum(replay.bytes for replay in replays)))
            await asyncio.sleep(_SHOW_S)

    async def _up_to(self, control: Connection, replays: Sequence[Replay], to: Cursor) -> Outcome:
        """One partition, to a place that was named."""
        replay = next((each for each in replays if each.source.stream == reel(to.partition)), None)
        if replay is None:
            raise Malformed(f"--to {to}: these views are not made from {reel(to.partition)}")
        async with self._shown([replay], "rebuilds"):
            await replay.to(to.sequence)
        live = (await live_cursors(control)).get(replay.source.stream)
        at = "nowhere" if live is None else str(live.sequence)
        why = f"--to {to} is not compared and not swapped: the live views are at {at}, and go on; look at it in the schema {FRESH}"
        return Outcome([], why, None)

    # -- swapping

    async def _swap(self, control: Connection, mark: Mark, replays: Sequence[Replay]) -> str:
        problem = Unavailable("events come faster than they are read")
        for _ in range(_SWAPS):
            await self._approach(control, replays)
            try:
                async with standing_still(control) as live:
                    if not await self._catches_up(live, replays):
                        continue
                    return await self._exchange(control, mark, live, replays)
            except Unavailable as error:
                if control.is_closed():
                    raise
                problem = error
                self._report.say("waits", f"waits to swap: {error}", reason=str(error))
                await asyncio.sleep(_RETRY_S[0] * (0.5 + random.random()))  # noqa: S311 - jitter
        raise Unavailable(f"the live views could not be swapped, {_SWAPS} times: {problem}")

    async def _catches_up(self, live: dict[str, Reached], replays: Sequence[Replay]) -> bool:
        """To where the live views stand still; not if that is far. Raises Unavailable when it takes too long."""
        try:
            async with asyncio.timeout(_STILL_S):
                targets = [(replay, *await self._targets(live, replay)) for replay in replays]
                if sum(sequence - replay.reached for replay, sequence, _ in targets) > NEAR_EVENTS:
                    return False
                for replay, sequence, at in targets:
                    await replay.to(sequence, at)
                return True
        except TimeoutError as error:
            raise Unavailable(f"the rest was not read in {_STILL_S:g} s, and the projector waited for it") from error

    async def _exchange(
        self, control: Connection, mark: Mark, live: dict[str, Reached], replays: Sequence[Replay]
    ) -> str:
        if mark.tables:
            refuse_unread(live, replays)
            return await swap_tables(control, mark.tables)
        present = await schemas.columns_of(control, FRESH)
        written = [table.name for source in self._sources for table in source.tables]
        with translated():
            purpose = await control.fetchval("SELECT obj_description(to_regnamespace($1)::oid, 'pg_namespace')", SCHEMA)
        return await swap_schema(control, schemas.kept_tables(present, written), purpose or tables.PURPOSE) or ""


def refuse_unread(live: dict[str, Reached], replays: Sequence[Replay]) -> None:
    """Raises Misconfigured. When some tables are swapped the live cursors stay: a projector would read such a stream
    from its beginning, into rows that have it."""
    unread = [replay.source.stream for replay in replays if not is_of(live, replay)]
    if unread:
        raise Misconfigured(
            f"nothing was swapped: the live views are not of {', '.join(unread)} as it is now: run"
            " `sandreel projections rebuild` without --view"
        )
