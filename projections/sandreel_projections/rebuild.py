"""Makes the views again from the log, beside the live ones; compares; puts them in their place.

Everything is resumable: what a rebuild is stands in its schema (`schemas.Mark`, `cursors`), so that one which was
killed anywhere is gone on with by the same command. The live projector is never stopped.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from sandreel_core import __version__
from sandreel_core.bus.port import Bus, StreamState
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.subjects import reel
from sandreel_core.errors import Conflict, Malformed, Misconfigured, NotFound, Unavailable
from sandreel_projections import schemas, tables
from sandreel_projections.compare import Comparison, compare
from sandreel_projections.database import Connection, connected, translated
from sandreel_projections.follower import PACE, Pace
from sandreel_projections.history import Archived, listed
from sandreel_projections.progress import Pacer
from sandreel_projections.projector import check_stream
from sandreel_projections.replay import Replay
from sandreel_projections.report import Report
from sandreel_projections.schemas import FRESH, Mark
from sandreel_projections.source import Source
from sandreel_projections.swap import live_cursors, standing_still, swap_schema, swap_tables
from sandreel_projections.tables import SCHEMA
from sandreel_projections.writer import Reached, ourselves

# "rebu" in ASCII: one rebuild at a time.
LOCK = 0x72656275
# The server needs a moment to see that a rebuild was killed.
_ALONE_WITHIN_S = 2.0
# So near to the live views that the rest is read while they are looked at, or stand still: two transactions.
NEAR_EVENTS = 8000
# How often the live views are asked to stand still before it is given up: somebody reads them all the time.
_SWAPS = 30
_RETRY_S = (0.2, 5.0)
_ANEW = 3
_SHOW_S = 0.5

# Makes a schema of this name, empty, of the newest version, and returns that version.
MakeSchema = Callable[[str], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """views    names of views or tables; none: all
    to       stop there, and swap nothing
    archive  where archived execs are; None: there are none
    accept_differences  swap also when rows differ from the live ones
    patience_s  how long servers that are away are waited for
    """

    views: tuple[str, ...] = ()
    to: Cursor | None = None
    compare_only: bool = False
    accept_differences: bool = False
    archive: Path | None = None
    patience_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """compared  one for each table that was; why not, where none was
    swapped      the schema that the old tables are in now, empty when there were none; None: nothing was swapped
    """

    compared: list[Comparison]
    not_compared: str
    swapped: str | None

    @property
    def differing(self) -> int:
        return sum(each.differing for each in self.compared)


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
        pace: Pace = PACE,
    ) -> None:
        self._bus = bus
        self._dsn = dsn
        self._sources = sources
        self._make_schema = make_schema
        self._report = report
        self._order = order
        self._pace = pace
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
            _check_place(self._order.to, states)
            await self._check(control, states)
            mark = await self._begin(control, states)
            replays = await self._replays(control, mark, stack)
            if self._order.to is not None:
                return await self._up_to(control, replays, self._order.to)
            async with self._shown(replays, "rebuilds"):
                await self._approach(control, replays)
                compared, not_compared = await self._compare(control, mark, replays)
            self._check_archive(mark)
            if self._order.compare_only or (
                any(each.differing for each in compared) and not self._order.accept_differences
            ):
                return Outcome(compared, not_compared, None)
            swapped = await self._swap(control, mark, replays)
            return Outcome(compared, not_compared, swapped)

    # -- before

    async def _check(self, control: Connection, states: dict[str, StreamState]) -> None:
        """Raises Misconfigured for a stream that is behind the views, and views of an older version."""
        for stream, reached in (await live_cursors(control)).items():
            if stream in states and states[stream].epoch == reached.epoch:
                check_stream(states[stream], reached.epoch, reached.sequence)

    async def _begin(self, control: Connection, states: dict[str, StreamState]) -> Mark:
        """The mark of the rebuild that is gone on with, or of a new one."""
        wanted = {stream: state.epoch for stream, state in states.items()}
        archive = self._archive(wanted)
        mark = await schemas.mark_of(control)
        if mark is not None:
            problem = await self._outdated(control, mark, wanted, archive)
            if not problem:
                since = f"{mark.begun_at:%Y-%m-%d %H:%M:%S} UTC"
                self._report.say("goes_on", f"goes on with the rebuild of {since}", begun_at=mark.begun_at.isoformat())
                return mark
            self._report.say("begun_anew", f"begins anew: {problem}", why=problem)
        await schemas.drop(control, FRESH)
        version = await self._make_schema(FRESH)
        mark = Mark(
            begun_at=datetime.now(UTC),
            version=version,
            program=program(),
            tables=await self._wanted_tables(control),
            epochs=wanted,
            archive=archive,
        )
        await self._check_version(control, version)
        await schemas.set_mark(control, mark)
        what = ", ".join(f"{SCHEMA}.{name}" for name in mark.tables) or "every view"
        self._report.say("begins", f"rebuilds {what} in the schema {FRESH}", tables=mark.tables, schema=FRESH)
        return mark

    async def _outdated(self, control: Connection, mark: Mark, epochs: dict[str, str], archive: list[str]) -> str:
        """Why what is there is of no use; empty when it is."""
        live, fresh = await live_cursors(control), await live_cursors(control, FRESH)
        if mark.program != program() or mark.version != await schemas.version_of(control, FRESH):
            return "what was begun is of another version of sandreel"
        if mark.epochs != epochs:
            return "a stream was restored or replaced since"
        if mark.archive != archive:
            return "execs were archived since"
        if mark.tables != await self._wanted_tables(control):
            return "what was begun is of other views"
        for stream, reached in fresh.items():
            at = live.get(stream)
            if at is not None and at.epoch == reached.epoch and at.sequence < reached.sequence:
                return "the live views are behind it"
            to = self._order.to
            if to is not None and stream == reel(to.partition) and reached.sequence > to.sequence:
                return f"what was begun is beyond {to}"
        return ""

    async def _wanted_tables(self, control: Connection) -> list[str]:
        """Empty for all. Raises Misconfigured for what is no view, or not made from the log."""
        if not self._order.views:
            return []
        behind = await schemas.tables_behind(control, self._order.views)
        units = [unit for source in self._sources for unit in _units(source)]
        chosen = sorted({str(name) for unit in units if unit & behind for name in unit})
        if not chosen:
            known = sorted({name for unit in units for name in unit})
            raise Misconfigured(
                f"--view: {', '.join(self._order.views)} is not made from the log; {', '.join(known)} are"
            )
        return chosen

    async def _check_version(self, control: Connection, version: str) -> None:
        live = await schemas.version_of(control, SCHEMA)
        if live not in (None, version):
            raise Misconfigured(
                f"the live views are of version {live}, this program's is {version}: run python -m sandreel_migrations"
            )

    def _archive(self, epochs: dict[str, str]) -> list[str]:
        directory = self._order.archive
        return [
            f"{stream}/{manifest.file}"
            for stream, epoch in epochs.items()
            for manifest in listed(directory, stream, epoch)
        ]

    def _check_archive(self, mark: Mark) -> None:
        """What an archiver has purged before we came to it, we have not read."""
        if self._archive(mark.epochs) != mark.archive:
            raise _Anew("execs were archived while it read")

    async def _replays(self, control: Connection, mark: Mark, stack: AsyncExitStack) -> list[Replay]:
        fresh = await live_cursors(control, FRESH)
        made = []
        for source in self._sources:
            selected = _selected(source, mark.tables)
            if not (selected.folds or selected.appends):
                continue
            reached, epoch = fresh.get(source.stream), mark.epochs[source.stream]
            archived = None
            if found := listed(self._order.archive, source.stream, epoch):
                directory = self._order.archive or Path()
                after = 0 if reached is None else reached.sequence
                archived = await stack.enter_async_context(Archived.of(directory, found, after))
            replay = Replay(self._bus, self._dsn, selected, epoch, archived, self._report, self._pace)
            replay.begin_at(reached)
            made.append(replay)
        return made

    # -- reading

    async def _targets(self, live: dict[str, Reached], replay: Replay) -> tuple[int, datetime | None]:
        """Where the live views are; where they are not of this stream, its end."""
        reached = live.get(replay.source.stream)
        if reached is not None and reached.epoch == replay.epoch:
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

    # -- comparing

    async def _compare(
        self, control: Connection, mark: Mark, replays: Sequence[Replay]
    ) -> tuple[list[Comparison], str]:
        """Both sides at exactly the same cursors: the live one as of one moment, the other brought to it."""
        written = {table.name: table for replay in replays for table in replay.source.tables}
        wanted = [*written.values()] if mark.tables else [*written.values(), tables.quarantine]
        async with connected(self._dsn, "rebuild compares", SCHEMA) as live:
            with translated():
                await live.transaction(isolation="repeatable_read", readonly=True).start()
            there = await schemas.columns_of(live, SCHEMA)
            cursors = await live_cursors(live)
            others = [replay.source.stream for replay in replays if not self._is_of(cursors, replay)]
            if others:
                return [], f"there are no live views of {', '.join(others)} as it is now: nothing to compare with"
            for replay in replays:
                reached = cursors[replay.source.stream]
                await replay.to(reached.sequence, reached.at)
            async with connected(self._dsn, "rebuild compares", FRESH) as rebuilt:
                with translated():
                    await rebuilt.transaction(isolation="repeatable_read", readonly=True).start()
                found = []
                for table in wanted:
                    if table.name not in there:
                        self._report.say(
                            "not_there",
                            f"{SCHEMA}.{table.name} is not there: nothing to compare with",
                            table=table.name,
                        )
                        continue
                    found.append(await compare(live, rebuilt, table))
                    self._moved_s = time.monotonic()
        return found, "" if found else "none of the live tables is there"

    @staticmethod
    def _is_of(cursors: dict[str, Reached], replay: Replay) -> bool:
        reached = cursors.get(replay.source.stream)
        return reached is not None and reached.epoch == replay.epoch

    # -- swapping

    async def _swap(self, control: Connection, mark: Mark, replays: Sequence[Replay]) -> str:
        for _ in range(_SWAPS):
            await self._approach(control, replays)
            try:
                async with standing_still(control) as live:
                    behind = 0
                    for replay in replays:
                        behind += (await self._targets(live, replay))[0] - replay.reached
                    if behind > NEAR_EVENTS:
                        continue
                    for replay in replays:
                        await replay.to(*await self._targets(live, replay))
                    return await self._exchange(control, mark)
            except Unavailable as error:
                if control.is_closed():
                    raise
                self._report.say("waits", f"waits to swap: {error}", reason=str(error))
                await asyncio.sleep(_RETRY_S[0] * (0.5 + random.random()))  # noqa: S311 - jitter
        raise Unavailable("somebody has read the live views all the time: they could not be swapped")

    async def _exchange(self, control: Connection, mark: Mark) -> str:
        if mark.tables:
            return await swap_tables(control, mark.tables)
        present = await schemas.columns_of(control, FRESH)
        written = [table.name for source in self._sources for table in source.tables]
        with translated():
            purpose = await control.fetchval("SELECT obj_description(to_regnamespace($1)::oid, 'pg_namespace')", SCHEMA)
        return await swap_schema(control, schemas.kept_tables(present, written), purpose or tables.PURPOSE) or ""


async def alone(control: Connection) -> None:
    """Take the lock of rebuilds, which goes with the connection. Raises Conflict, in one line, when another has it."""
    deadline_s = time.monotonic() + _ALONE_WITHIN_S
    while True:
        with translated():
            if await control.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
                return
        if time.monotonic() > deadline_s:
            break
        await asyncio.sleep(_RETRY_S[0])
    raise Conflict(
        "another rebuild runs: there is one at a time; `sandreel projections status` says where and since when"
    )


def program() -> str:
    """The version of the folds: that of sandreel, and a digest of the code, which a checkout changes without it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return f"{__version__} {digest.hexdigest()[:16]}"


def _check_place(to: Cursor | None, states: dict[str, StreamState]) -> None:
    """Raises Malformed for a cursor that is none of these streams'."""
    if to is None:
        return
    state = states.get(reel(to.partition))
    if state is None:
        raise Malformed(f"--to {to}: there is no partition {to.partition}")
    to.check(state.epoch)
    if to.sequence > state.last_sequence:
        raise Malformed(f"--to {to}: {state.name} ends at {state.last_sequence}")


def _units(source: Source) -> list[set[str]]:
    """Tables that are written by one fold or append: they are rebuilt together."""
    folds = [{table.name for table in (fold.table, fold.records) if table is not None} for fold in source.folds]
    return [*folds, *({append.table.name} for append in source.appends)]


def _selected(source: Source, names: Sequence[str]) -> Source:
    """The source with only what writes these tables; no names: all of it."""
    if not names:
        return source
    return replace(
        source,
        folds=tuple(fold for fold in source.folds if fold.table.name in names),
        appends=tuple(append for append in source.appends if append.table.name in names),
    )
