"""Reading the views: one statement of an analyst, and the snapshot from which a reader of many execs begins."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import asyncpg

from sandreel_core.bus.execs import MAX_REMEMBERED, Snapshot
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.subjects import EventSubject, reel
from sandreel_core.errors import Malformed, Misconfigured, Unavailable
from sandreel_core.exec import ENDED
from sandreel_projections.analysts import become
from sandreel_projections.database import Connection, connected, translated

_PAGE_ROWS = 1000
_PLACES_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The columns of a statement's result, and its rows as they come; no more than a page is held."""

    columns: tuple[str, ...]
    rows: AsyncIterator[tuple[Any, ...]]


@asynccontextmanager
async def select(
    dsn: str, statement: str, *, arguments: Sequence[Any] = (), timeout_s: float = 60.0, role: str | None = None
) -> AsyncGenerator[Answer, None]:
    """Run one statement that only reads, where a `role` is given as that analyst would see it. `arguments` are for `$1`, ….

    Raises NotFound when there is no such analyst, Malformed with what Postgres says of the statement, Unavailable when
    it cannot be reached or took longer than `timeout_s`.
    """
    async with connected(dsn, "sql") as connection:
        with translated():
            # In milliseconds; 0 would be no limit.
            await connection.execute(f"SET statement_timeout = {max(1, int(timeout_s * 1000))}")
        with _judged(timeout_s):
            # It only reads, and ends with the connection.
            await connection.transaction(isolation="repeatable_read", readonly=True).start()
            if role is not None:
                await become(connection, role)
            # Where we may: as somebody who can read every table and nothing of the machine.
            elif await connection.fetchval("SELECT pg_has_role('pg_read_all_data', 'SET')"):
                await connection.execute("SET LOCAL ROLE pg_read_all_data")
            prepared = await connection.prepare(statement)
            names = tuple(attribute.name for attribute in prepared.get_attributes())
            if not names:
                raise Malformed("the statement has no result: only statements that read are taken")
        # Outside of that: what goes wrong with the caller's own files and pipes is nothing of Postgres'.
        yield Answer(names, _rows(prepared.cursor(*arguments, prefetch=_PAGE_ROWS), timeout_s))


async def _rows(records: Any, timeout_s: float) -> AsyncGenerator[tuple[Any, ...], None]:
    with _judged(timeout_s):
        async for record in records:
            yield tuple(record)


class _judged:  # noqa: N801 - reads as a statement
    """Postgres' complaints about an analyst's statement as Malformed; everything else as usual."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, asyncpg.QueryCanceledError):
            raise Unavailable(f"the statement took longer than {self._timeout_s:g} s; give it --timeout") from error
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            raise Malformed("the views are only read here: the projector alone writes them") from error
        if isinstance(error, asyncpg.InsufficientPrivilegeError) and re.search("reel_access|analyst_orgs", str(error)):
            # Row-level security asks for them in this role's own name.
            raise Misconfigured(
                f"Postgres refuses: {error}: this role is no analyst, and so has no organisations; make one with"
                " `sandreel analyst add`, or let it see everything with GRANT pg_read_all_data TO it"
            ) from error
        passing = (asyncpg.OperatorInterventionError, asyncpg.PostgresConnectionError)
        if isinstance(error, asyncpg.PostgresError) and not isinstance(error, passing):
            hint = f" ({error.hint})" if getattr(error, "hint", None) else ""
            raise Malformed(f"Postgres does not take the statement: {error}{hint}") from error
        if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | OSError):
            with translated():
                raise error


async def places(dsn: str) -> list[Cursor]:
    """How far the views have read each partition. Raises Unavailable when they cannot be reached, Malformed when
    they are not there."""
    statement = "SELECT epoch, partition, sequence FROM reel.cursors WHERE partition IS NOT NULL"
    async with select(dsn, statement, timeout_s=_PLACES_WITHIN_S) as answer:
        return [Cursor(epoch, partition, sequence) async for epoch, partition, sequence in answer.rows]


async def snapshot(dsn: str, partition: int) -> Snapshot | None:
    """Where a reader of many execs may begin, as of one moment. None while nothing of the partition has been read.

    Every exec that has not ended, and those that ended last: the reader remembers no more than MAX_REMEMBERED.
    """
    async with connected(dsn, "snapshot") as connection:
        with translated():
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await _snapshot(connection, partition)


async def _snapshot(connection: Connection, partition: int) -> Snapshot | None:
    row = await connection.fetchrow("SELECT epoch, sequence FROM reel.cursors WHERE stream = $1", reel(partition))
    if row is None:
        return None
    execs = await connection.fetch(
        "SELECT org, session, exec, last_n, phase = ANY ($1) AS ended, stdout_open, stdout_next_line, stderr_open,"
        " stderr_next_line FROM reel.execs"
        " WHERE split_part(last_cursor, ':', 2) = $2"
        " ORDER BY phase = ANY ($1), split_part(last_cursor, ':', 3)::bigint DESC LIMIT $3",
        list(ENDED),
        str(partition),
        MAX_REMEMBERED,
    )
    places = [
        (
            str(EventSubject(partition, each["org"], each["session"], "exec", each["exec"])),
            each["last_n"],
            each["ended"],
        )
        for each in execs
    ]
    streams: tuple[Literal["stdout", "stderr"], ...] = ("stdout", "stderr")
    return Snapshot(
        Cursor(row["epoch"], partition, row["sequence"]),
        {subject: last_n + 1 for subject, last_n, _ in places},
        frozenset(subject for subject, _, ended in places if ended),
        {
            (subject, stream): each[f"{stream}_next_line"]
            for (subject, _, ended), each in zip(places, execs, strict=True)
            for stream in streams
            if each[f"{stream}_open"] and not ended
        },
    )


def required(dsn: str | None) -> str:
    """The DSN of the settings. Raises Misconfigured when there is none."""
    if dsn is None:
        raise Misconfigured("Postgres is not set: give [postgres] dsn or SANDREEL_POSTGRES_DSN")
    return dsn
