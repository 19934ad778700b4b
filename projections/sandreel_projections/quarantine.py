"""What no view could digest: told, and tried again when the folds have learned to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sandreel_core.bus.port import Bus, Stored, StreamState
from sandreel_core.clock import new_token
from sandreel_core.errors import Malformed, Misconfigured, Unavailable
from sandreel_projections.batch import Batch, Views
from sandreel_projections.database import Connection, connected, translated
from sandreel_projections.follower import PACE
from sandreel_projections.history import Archived, history, lineage, listed
from sandreel_projections.source import Source
from sandreel_projections.swap import IDLE_WITHIN_S
from sandreel_projections.tables import SCHEMA, columns
from sandreel_projections.writer import Writer

# The rows of one session, however many, are never forgotten while it is folded.
_ALL = 1 << 62
# The projector waits while a session is read: so long for NATS, and no longer.
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One event in quarantine."""

    stream: str
    sequence: int
    cursor: str
    subject: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Retried:
    """One session after a retry: how many of its events are digested now, and those that are not, with why. `kept`
    says why its rows were left as they were."""

    stream: str
    org: str
    session: str
    digested: int
    remaining: list[Entry]
    kept: str = ""


async def entries(dsn: str, *, limit: int) -> list[Entry]:
    """The newest first."""
    async with connected(dsn, "quarantine", SCHEMA) as connection:
        return await _entries(connection, "TRUE ORDER BY at DESC, sequence DESC LIMIT $1", limit)


async def _entries(connection: Connection, where: str, *values: Any) -> list[Entry]:
    with translated():
        rows = await connection.fetch(
            f"SELECT stream, sequence, cursor, subject, reason, at FROM quarantine WHERE {where}",  # noqa: S608 - our own
            *values,
        )
    return [Entry(**dict(row)) for row in rows]


async def retry(
    bus: Bus, dsn: str, source: Source, archive: Path | None, *, patience_s: float = PATIENCE_S
) -> list[Retried]:
    """Fold every session that has quarantined events anew, from the log up to the cursor, and replace its rows if more
    events are digested than before. The projector waits meanwhile, for as long as reading that session takes; but for NATS
    it waits `patience_s` at most, and changes nothing then.

    A session, and not one aggregate of it: whatever a fold's key is, it lies within one. Raises Unavailable,
    NotFound, Misconfigured.
    """
    async with connected(dsn, "quarantine", SCHEMA) as connection:
        found = await _entries(connection, "stream = $1 ORDER BY sequence", source.stream)
        places = dict.fromkeys(_session_of(entry.subject) for entry in found)
        done = []
        for org, session in places:
            of_it = [entry for entry in found if _session_of(entry.subject) == (org, session)]
            if not session:
                done.append(Retried(source.stream, "", "", 0, of_it, "their subjects name no session"))
            else:
                done.append(await _retry(bus, connection, source, archive, org, session, patience_s))
        return done


def _session_of(subject: str) -> tuple[str, str]:
    """Org and session of any subject; empty for one that has none."""
    tokens = subject.split(".")
    return (tokens[2], tokens[3]) if len(tokens) > 3 else ("", "")


def _of_session(source: Source, org: str, session: str) -> Source:
    """The same source, filtered: `evt.0.>` becomes `evt.0.<org>.<session>.>`, `cmd.>` `cmd.*.<org>.<session>.>`."""
    heads = [[*each.removesuffix(".>").split("."), "*"][:2] for each in source.filters]
    return replace(source, filters=tuple(".".join([*head, org, session, ">"]) for head in heads))


async def _retry(
    bus: Bus,
    connection: Connection,
    source: Source,
    archive: Path | None,
    org: str,
    session: str,
    patience_s: float,
) -> Retried:
    writer = Writer(source, SCHEMA, connection, connection)
    with translated():
        transaction = connection.transaction()
        await transaction.start()
    keep = False
    try:
        with translated():
            # The projector's next transaction waits for this row.
            cursor = await connection.fetchrow(
                "SELECT epoch, sequence FROM cursors WHERE stream = $1 FOR UPDATE", source.stream
            )
        if cursor is None:
            raise Misconfigured(f"nothing of {source.stream} has been read yet")
        prefix = f"{source.filters[0].removesuffix('>')}{org}.{session}."
        where = (
            "stream = $1 AND split_part(subject, '.', 3) = $2 AND split_part(subject, '.', 4) = $3 ORDER BY sequence"
        )
        before = await _entries(connection, where, source.stream, org, session)
        async with AsyncExitStack() as stack:
            archived = None
            state = await _state(bus, source.stream, patience_s)
            epochs = lineage(state) if state.epoch == cursor["epoch"] else {}
            if files := listed(archive, source.stream, epochs):
                archived = await stack.enter_async_context(Archived.of(archive or Path(), files, prefix=prefix))
            with translated():  # not before: to read an archive may take long
                await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = {int(IDLE_WITHIN_S * 1000)}")
            lost = await _again(bus, connection, writer, source, archived, cursor, org, session, patience_s)
        after = await _entries(connection, where, source.stream, org, session)
        digested = len({entry.sequence for entry in before} - {entry.sequence for entry in after})
        if lost:
            return Retried(
                source.stream, org, session, 0, before, f"{lost} would be lost: is the archive there, and whole?"
            )
        if not digested:
            return Retried(source.stream, org, session, 0, after)
        with translated():
            # The projector remembers rows of before: it has to load them again.
            await connection.execute("UPDATE cursors SET build = $2 WHERE stream = $1", source.stream, new_token())
        keep = True
        return Retried(source.stream, org, session, digested, after)
    finally:
        if not connection.is_closed():
            with translated():
                await (transaction.commit() if keep else transaction.rollback())


async def _again(
    bus: Bus,
    connection: Connection,
    writer: Writer,
    source: Source,
    archived: Archived | None,
    cursor: Any,
    org: str,
    session: str,
    patience_s: float,
) -> str:
    """Its rows from the log alone, in the transaction; what would be lost by that, empty if nothing."""
    first = 0
    if source.forgets:
        first = (await _state(bus, source.stream, patience_s)).first_sequence
    before = await _count(connection, source, org, session)
    # Of a stream that forgets, what it has forgotten, or what stood in one before it, is known here alone.
    clause = " AND epoch = $3 AND sequence >= $4" if source.forgets else ""
    values = (org, session, cursor["epoch"], first) if source.forgets else (org, session)
    with translated():
        for table in source.tables:
            await connection.execute(
                f"DELETE FROM {table.name} WHERE org = $1 AND session = $2{clause}",  # noqa: S608 - our own
                *values,
            )
        await connection.execute(
            "DELETE FROM quarantine WHERE split_part(subject, '.', 3) = $1 AND split_part(subject, '.', 4) = $2"  # noqa: S608 - our own
            f" AND stream = '{source.stream}'{clause}",
            *values,
        )
    views = Views(source, cursor["epoch"], limit=_ALL)
    filtered = _of_session(source, org, session)
    read = history(bus, filtered, archived, after=0, up_to=cursor["sequence"], patience_s=patience_s)
    async with aclosing(read) as items:
        async for item in items:
            for page in _pages(item) if isinstance(item, list) else ():
                await _fold(connection, writer, views, page)
    after = await _count(connection, source, org, session)
    return ", ".join(f"{before[name] - after[name]} rows of {name}" for name in before if after[name] < before[name])


async def _state(bus: Bus, stream: str, patience_s: float) -> StreamState:
    try:
        async with asyncio.timeout(patience_s):
            return await bus.state(stream)
    except TimeoutError as error:
        raise Unavailable(f"NATS has not answered for {patience_s:g} s") from error


async def _count(connection: Connection, source: Source, org: str, session: str) -> dict[str, int]:
    counts = {}
    for table in source.tables:
        if not {"org", "session"} <= set(columns(table)):
            raise ValueError(f"{table.name} does not say whose its rows are")
        with translated():
            counts[table.name] = await connection.fetchval(
                f"SELECT count(*) FROM {table.name} WHERE org = $1 AND session = $2",  # noqa: S608 - our own
                *(org, session),
            )
    return counts


def _pages(messages: list[Stored]) -> Iterable[list[Stored]]:
    return (messages[i : i + PACE.max_events] for i in range(0, len(messages), PACE.max_events))


async def _fold(connection: Connection, writer: Writer, views: Views, page: list[Stored]) -> None:
    """A page at once; if Postgres cannot keep something in it, one by one."""
    try:
        await _put(connection, writer, views, page, "")
    except Malformed as error:
        views.reset()  # it holds rows that were not kept
        if len(page) == 1:
            await _put(connection, writer, views, page, str(error))
            return
        for stored in page:
            await _fold(connection, writer, views, [stored])


async def _put(connection: Connection, writer: Writer, views: Views, page: list[Stored], refused: str) -> None:
    batch = Batch(before=0)
    pairs = [(stored, change) for stored in page if (change := views.decode(stored, batch)) is not None]
    if wanted := views.unknown([change for _, change in pairs]):
        views.learn(await writer.load(wanted))
    for stored, change in pairs:
        if refused:
            views.poison(stored, change, refused, batch)
        else:
            views.apply(stored, change, batch)
    with translated():
        async with connection.transaction():
            await writer.put(batch)
