"""One source read again from its beginning, into a schema of its own, up to any place of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Table

from sandreel_core.bus.port import Bus, Missing
from sandreel_core.errors import Conflict, Malformed, Misconfigured, NotFound, Unavailable
from sandreel_projections.batch import Batch
from sandreel_projections.database import Connection, SchemaMissing, connected, translated
from sandreel_projections.days import day_column
from sandreel_projections.follower import Follower, Pace, chosen
from sandreel_projections.history import Archived, history
from sandreel_projections.report import Report
from sandreel_projections.schemas import FRESH
from sandreel_projections.source import Source
from sandreel_projections.tables import SCHEMA, columns, quarantine
from sandreel_projections.writer import Reached, Writer

_ORDER = (Unavailable, NotFound, Conflict, Malformed, SchemaMissing, Misconfigured)


class Replay:
    """`reached` is its cursor in the rebuild's schema, as far as is known here."""

    def __init__(
        self,
        bus: Bus,
        dsn: str,
        source: Source,
        epoch: str,
        archived: Archived | None,
        report: Report,
        pace: Pace,
        patience_s: float,
    ) -> None:
        self.source = source
        self.epoch = epoch
        self._bus = bus
        self._dsn = dsn
        self._archived = archived
        self._report = report
        self._patience_s = patience_s
        self._follower = Follower(source, pace, on_missing=self._missing)

    @property
    def reached(self) -> int:
        return self._follower.reached

    @property
    def events(self) -> int:
        """Read since this object was made."""
        return self._follower.events

    @property
    def bytes(self) -> int:
        return self._follower.bytes

    def begin_at(self, reached: Reached | None) -> None:
        """Where an earlier run has left off."""
        self._follower.reached = 0 if reached is None else reached.sequence

    async def to(self, sequence: int, at: datetime | None = None) -> None:
        """Read on until the cursor is exactly there. `at` is the time of that event, where it is known: it may not be
        in the stream any more.

        Raises Unavailable, NotFound, Misconfigured; Conflict when somebody else writes the same schema.
        """
        while self.reached < sequence:
            try:
                await self._read(sequence, at)
            except BaseExceptionGroup as problems:
                problem = chosen(problems, _ORDER)
                if not isinstance(problem, Malformed):
                    raise problem from problems
            except Malformed:
                pass  # a value that Postgres cannot keep: from the cursor on one by one, which finds it

    async def _read(self, sequence: int, at: datetime | None) -> None:
        async with Writer.open(self._dsn, self.source, schema=FRESH) as writer:
            await writer.lead()
            reached = await writer.reached()
            if reached is None:
                if self.source.forgets:
                    await self._take_over_replaced()
                reached = await writer.begin(self.epoch)
            self._follower.reached = reached.sequence
            if reached.sequence >= sequence:
                return
            items = history(
                self._bus,
                self.source,
                self._archived,
                after=reached.sequence,
                up_to=sequence,
                patience_s=self._patience_s,
            )
            await self._follower.run(writer, reached, items)
            if self.reached < sequence:  # what stands between was purged
                await writer.commit(Batch(before=self.reached, sequence=sequence, at=at))
                self._follower.reached = sequence

    async def remaining(self) -> int:
        """About how many events are still to be read: purged ones leave holes of which only the number is known."""
        state = await self._bus.state(self.source.stream)
        first = max(self.reached + 1, state.first_sequence)
        span, left = state.last_sequence - state.first_sequence + 1, state.last_sequence - first + 1
        in_stream = round(state.messages * left / span) if span > 0 and left > 0 else 0
        return in_stream + (0 if self._archived is None else self._archived.count(self.reached))

    async def _missing(self, item: Missing) -> None:
        """What the stream keeps no more: a source that forgets has its rows in the live views alone."""
        if self.source.forgets:
            await self._take_over(item)
            return
        archived = 0 if self._archived is None else self._archived.count(item.from_sequence - 1)
        archived -= 0 if self._archived is None else self._archived.count(item.to_sequence)
        self._report.say(
            "missing",
            f"{self.source.stream}: events {item.from_sequence:,} to {item.to_sequence:,} are in the stream no more;"
            f" the archive has {archived:,} of them",
            stream=self.source.stream,
            from_sequence=item.from_sequence,
            to_sequence=item.to_sequence,
            archived_events=archived,
        )

    async def _take_over_replaced(self) -> None:
        """What stood in a stream of another epoch: this one may have no copy of it, and the live views alone know."""
        taken = await self._take("epoch <> $1", self.epoch)
        if taken:
            self._report.say(
                "taken_over",
                f"{self.source.stream}: it was restored or replaced; {taken:,} rows of what stood in it before are taken"
                " over from the live views",
                stream=self.source.stream,
                to_sequence=0,
                rows=taken,
            )

    async def _take_over(self, item: Missing) -> None:
        span = (item.from_sequence, item.to_sequence)
        taken = await self._take("epoch = $1 AND sequence BETWEEN $2 AND $3", self.epoch, *span)
        self._report.say(
            "taken_over",
            f"{self.source.stream}: it keeps nothing before {item.to_sequence + 1:,}; {taken:,} rows of that are taken"
            " over from the live views",
            stream=self.source.stream,
            to_sequence=item.to_sequence,
            rows=taken,
        )

    async def _take(self, where: str, *values: Any) -> int:
        """The live rows for which this holds, however often it is done; how many they are."""
        taken = 0
        async with connected(self._dsn, "rebuild takes over", FRESH) as connection:
            with translated():
                async with connection.transaction():
                    for table in self.source.tables:
                        taken += await _copy_live(connection, table, where, values)
                    if quarantine not in self.source.tables:
                        of_it = f"{where} AND stream = '{self.source.stream}'"
                        taken += await _copy_live(connection, quarantine, of_it, values)
        return taken


async def _copy_live(connection: Connection, table: Table, where: str, values: Sequence[Any]) -> int:
    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{SCHEMA}.{table.name}"):
        return 0
    if day_column(table) is not None or not {"epoch", "sequence"} <= set(columns(table)):
        raise ValueError(f"{table.name} cannot be taken over from a source that forgets")
    names = ", ".join(columns(table))
    await connection.execute(f"DELETE FROM {table.name} WHERE {where}", *values)  # noqa: S608 - our own
    done = await connection.execute(
        f"INSERT INTO {table.name} ({names}) SELECT {names} FROM {SCHEMA}.{table.name} WHERE {where}",  # noqa: S608
        *values,
    )
    return int(done.rpartition(" ")[2])
