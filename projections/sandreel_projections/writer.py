"""Writes one partition's views. A batch and its cursor stand in one transaction, so each event counts once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import asyncpg
from msgspec import Struct
from sqlalchemy import Table

from sandreel_core.errors import Conflict
from sandreel_projections import execs, sessions, tables
from sandreel_projections.batch import Batch
from sandreel_projections.database import Connection, connected, translated
from sandreel_projections.days import Days
from sandreel_projections.execs import ExecRow
from sandreel_projections.sessions import SessionRow

# First key of the advisory lock, "reel" in ASCII; the second is the partition.
_LOCK = 0x7265656C
_STANDBY_S = 0.5
Row = TypeVar("Row", bound=Struct)


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a partition has been written."""

    epoch: str
    sequence: int


class Writer:
    """One partition's only writer, from `lead` on. `write` writes; `read` loads rows and notes the lag."""

    def __init__(self, partition: int, write: Connection, read: Connection) -> None:
        self._partition = partition
        self._write = write
        self._read = read
        self._reading = asyncio.Lock()
        self._days = Days()
        self._epoch = ""
        self._put_execs = _upsert(tables.execs)
        self._put_sessions = _upsert(tables.sessions)

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str, partition: int) -> AsyncGenerator[Writer, None]:
        """Two connections. Raises Unavailable, or Misconfigured for what only an operator can mend."""
        name = f"projector {partition}"
        async with connected(dsn, name) as write, connected(dsn, f"{name} reads") as read:
            with translated():
                # What a crash of Postgres takes, it takes together with the cursor: it is read again.
                await write.execute("SET synchronous_commit = off")
            yield cls(partition, write, read)

    async def lead(self, standby: asyncio.Event | None = None) -> None:
        """Wait, for ever, until nobody else writes this partition; `standby` is set if somebody does.

        The lock is the connection's: it goes with the process, however that ends.
        """
        while True:
            with translated():
                if await self._write.fetchval("SELECT pg_try_advisory_lock($1, $2)", _LOCK, self._partition):
                    return
            if standby is not None:
                standby.set()
            # Asked for again and again, not waited for: a waiting statement would hold vacuum back for days.
            await asyncio.sleep(_STANDBY_S * (0.5 + random.random()))  # noqa: S311 - jitter

    async def reached(self) -> Reached | None:
        """None for a partition of which nothing was written yet."""
        with translated():
            row = await self._write.fetchrow(
                "SELECT epoch, sequence FROM reel.cursors WHERE partition = $1", self._partition
            )
        if row is None:
            return None
        self._epoch = row["epoch"]
        return Reached(row["epoch"], row["sequence"])

    async def begin(self, epoch: str) -> Reached:
        """The first cursor, before the first event of a stream."""
        with translated():
            await self._write.execute(
                "INSERT INTO reel.cursors (partition, epoch, sequence, stream_sequence) VALUES ($1, $2, 0, 0)",
                self._partition,
                epoch,
            )
        self._epoch = epoch
        return Reached(epoch, 0)

    async def load(
        self, exec_keys: Iterable[execs.Key], session_keys: Iterable[sessions.Key]
    ) -> tuple[dict[execs.Key, ExecRow | None], dict[sessions.Key, SessionRow | None]]:
        """The stored rows of these execs and the newest of these sessions; None for what has none."""
        found_execs: dict[execs.Key, ExecRow | None] = dict.fromkeys(exec_keys)
        found_sessions: dict[sessions.Key, SessionRow | None] = dict.fromkeys(session_keys)
        async with self._reading:
            with translated():
                if found_execs:
                    for row in await self._read.fetch(_LOAD_EXECS, *_transposed(found_execs, 3)):
                        exec_row = _row(ExecRow, row)
                        found_execs[exec_row.org, exec_row.session, exec_row.exec] = exec_row
                if found_sessions:
                    for row in await self._read.fetch(_LOAD_SESSIONS, *_transposed(found_sessions, 2)):
                        session_row = _row(SessionRow, row)
                        found_sessions[session_row.org, session_row.session] = session_row
        return found_execs, found_sessions

    async def commit(self, batch: Batch) -> None:
        """All of it or nothing.

        Raises Conflict when the cursor is not where the batch begins, Malformed when Postgres cannot keep a
        value in it, Unavailable when it is not known whether it was written: then ask `reached`.
        """
        await self._days.ensure(self._write, {block[-1].date() for block in batch.blocks})
        with translated():
            async with self._write.transaction():
                done = await self._write.execute(
                    "UPDATE reel.cursors SET sequence = $4, at = coalesce($5, at),"
                    " stream_sequence = greatest(stream_sequence, $4), stream_at = greatest(stream_at, $5)"
                    " WHERE partition = $1 AND epoch = $2 AND sequence = $3",
                    *(self._partition, self._epoch, batch.before, batch.sequence, batch.at),
                )
                if done != "UPDATE 1":
                    raise Conflict(f"partition {self._partition} is not at {batch.before} any more")
                if batch.sessions:
                    await self._write.executemany(self._put_sessions, map(_values, batch.sessions.values()))
                if batch.execs:
                    await self._write.executemany(self._put_execs, map(_values, batch.execs.values()))
                if batch.blocks:
                    await self._copy(tables.exec_blocks, batch.blocks)
                if batch.quarantined:
                    await self._copy(tables.quarantine, batch.quarantined)

    async def look(self, stream_sequence: int, stream_at: datetime | None) -> None:
        """Note where the stream ends now, for `reel.projection_lag`."""
        async with self._reading:
            with translated():
                await self._read.execute(
                    "UPDATE reel.cursors SET stream_sequence = greatest($3, sequence), looked_at = clock_timestamp(),"
                    " stream_at = CASE WHEN $3 > sequence THEN coalesce($4, stream_at) ELSE at END"
                    " WHERE partition = $1 AND epoch = $2",
                    *(self._partition, self._epoch, stream_sequence, stream_at),
                )

    async def _copy(self, table: Table, records: list[Any]) -> None:
        await self._write.copy_records_to_table(
            table.name, schema_name=table.schema, columns=tables.columns(table), records=records
        )


def _upsert(table: Table) -> str:
    names = tables.columns(table)
    key = [column.name for column in table.primary_key.columns]
    return (
        f"INSERT INTO {table.schema}.{table.name} ({', '.join(names)})"  # noqa: S608 - names of our own tables
        f" VALUES ({', '.join(f'${i}' for i in range(1, len(names) + 1))}) ON CONFLICT ({', '.join(key)})"
        f" DO UPDATE SET {', '.join(f'{name} = EXCLUDED.{name}' for name in names if name not in key)}"
    )


_LOAD_EXECS = (
    f"SELECT {', '.join(tables.columns(tables.execs))} FROM reel.execs"  # noqa: S608
    " WHERE (org, session, exec) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))"
)
_LOAD_SESSIONS = (
    f"SELECT DISTINCT ON (org, session) {', '.join(tables.columns(tables.sessions))} FROM reel.sessions"  # noqa: S608
    " WHERE (org, session) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
    " ORDER BY org, session, incarnation DESC"
)


def _transposed(keys: Iterable[tuple[str, ...]], width: int) -> list[list[str]]:
    return [[key[i] for key in keys] for i in range(width)]


def _values(row: Struct) -> tuple[Any, ...]:
    return tuple([getattr(row, name) for name in row.__struct_fields__])


def _row(type: type[Row], record: asyncpg.Record) -> Row:
    return type(**dict(record))
