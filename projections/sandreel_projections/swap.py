"""Puts rebuilt tables in the place of the live ones, in one transaction, under a projector that is never stopped.

Every transaction of the projector begins with its cursor. So whoever holds the lock on `cursors` knows that none
stands astride; one that waits for the lock finds the new schema's cursors afterwards (Postgres looks the name up
again), whose `build` is another one: it conflicts, and goes on from the new rows, exactly once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from sandreel_core.clock import new_token
from sandreel_core.errors import Conflict
from sandreel_projections import grants
from sandreel_projections.database import Connection, translated
from sandreel_projections.definitions import Definitions
from sandreel_projections.schemas import FRESH, OLD, set_comment
from sandreel_projections.tables import SCHEMA
from sandreel_projections.writer import Reached

# Waiting for analysts who are reading what is to be moved: everybody who comes later waits behind us.
LOCK_WITHIN_S = 2.0
# A process that is suspended (Ctrl-Z) keeps its locks: Postgres takes them from it, and it begins anew.
IDLE_WITHIN_S = 30.0


@asynccontextmanager
async def standing_still(connection: Connection) -> AsyncGenerator[dict[str, Reached], None]:
    """A transaction in which no view is written; the live cursors by stream. None is there without a live schema.

    Raises Unavailable when the lock is not to be had in time: let go, and try again.
    """
    with translated():
        transaction = connection.transaction()
        await transaction.start()
    try:
        with translated():
            await connection.execute(f"SET LOCAL lock_timeout = {int(LOCK_WITHIN_S * 1000)}")
            await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = {int(IDLE_WITHIN_S * 1000)}")
            # Not ACCESS EXCLUSIVE: those who look at the lag go on.
            if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{SCHEMA}.cursors"):
                await connection.execute(f"LOCK TABLE {SCHEMA}.cursors IN EXCLUSIVE MODE")
        yield await live_cursors(connection)
        with translated():
            await transaction.commit()
    except BaseException:
        if not connection.is_closed():
            with translated():
                await transaction.rollback()
        raise


async def live_cursors(connection: Connection, schema: str = SCHEMA) -> dict[str, Reached]:
    """By stream, how far the views of a schema are; nothing when it is not there."""
    with translated():
        if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{schema}.cursors"):
            return {}
        rows = await connection.fetch(f"SELECT stream, epoch, sequence, build, at FROM {schema}.cursors")  # noqa: S608 - our own
    return {row["stream"]: Reached(row["epoch"], row["sequence"], row["build"], row["at"]) for row in rows}


async def swap_schema(connection: Connection, kept: Sequence[str], purpose: str) -> str | None:
    """The whole schema; in the transaction of `standing_still`. The name of the old one, None if there was none.

    kept  tables that no log leads to: their rows go along
    Raises Conflict when something of somebody's own would be lost, or would go on reading the old tables.
    """
    old = _old_name()
    with translated():
        there = bool(await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", SCHEMA))
        if there:
            for table in kept:
                if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{SCHEMA}.{table}"):
                    await connection.execute(f"DELETE FROM {FRESH}.{table}")  # noqa: S608 - a table of our own
                    await connection.execute(f"INSERT INTO {FRESH}.{table} SELECT * FROM {SCHEMA}.{table}")  # noqa: S608
            await grants.carry(connection, SCHEMA, FRESH)
            await connection.execute(f"ALTER SCHEMA {SCHEMA} RENAME TO {old}")
            await connection.execute(f"COMMENT ON SCHEMA {old} IS 'views that a rebuild has replaced'")
        await connection.execute(f"ALTER SCHEMA {FRESH} RENAME TO {SCHEMA}")
        await set_comment(connection, SCHEMA, purpose)
        if there:
            _refuse(await _objects(connection, old) - await _objects(connection, SCHEMA), await _left(connection, old))
    return old if there else None


async def swap_tables(connection: Connection, names: Sequence[str]) -> str:
    """Some tables, with their days; in the transaction of `standing_still`. The name of the schema that the old ones
    are in now.

    Views, functions and policies are bound to their tables by number and not by name: those that read one of these
    tables are made again. Raises Conflict when something of the live schema would be lost by that.
    """
    old = _old_name()
    with translated():
        before = await _objects(connection, SCHEMA)
        wanted = await _objects(connection, FRESH)
        definitions = await Definitions.of(connection, FRESH, names)
        await connection.execute(f"CREATE SCHEMA {old}")
        await connection.execute(f"COMMENT ON SCHEMA {old} IS 'tables that a rebuild has replaced'")
        await _move(connection, SCHEMA, old, names)
        await _move(connection, FRESH, SCHEMA, names)
        await grants.carry(connection, old, SCHEMA)
        await definitions.make(connection, SCHEMA)
        await connection.execute(f"UPDATE {SCHEMA}.cursors SET build = $1", new_token())  # noqa: S608 - our own
        # What the new rows lack because no fold could digest it: `quarantine retry` takes it in.
        await connection.execute(
            f"INSERT INTO {SCHEMA}.quarantine SELECT * FROM {FRESH}.quarantine ON CONFLICT DO NOTHING"  # noqa: S608 - our own
        )
        await connection.execute(f"DROP SCHEMA {FRESH} CASCADE")
        lost = (before | (wanted & definitions.names)) - await _objects(connection, SCHEMA)
        _refuse(lost, await _left(connection, old))
    return old


def _refuse(lost: set[str], left: set[str]) -> None:
    """Raises Conflict, in one line, when either is not empty."""
    said = [f"{', '.join(sorted(lost))} would be lost"] if lost else []
    said += [f"{', '.join(sorted(left))} would still read the old tables"] if left else []
    if said:
        raise Conflict(
            f"nothing was swapped: {'; '.join(said)}. What is not sandreel's own: drop it, run the same command again"
            " (it goes on with what is rebuilt), and make it again"
        )


def _old_name() -> str:
    now = datetime.now(UTC)
    return f"{OLD}{now:%Y%m%dt%H%M%S}_{now.microsecond // 1000:03}"


async def _objects(connection: Connection, schema: str) -> set[str]:
    rows = await connection.fetch(
        "SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'p', 'v', 'm')"
        " AND NOT relispartition"
        " UNION SELECT proname FROM pg_proc WHERE pronamespace = to_regnamespace($1)"
        " UNION SELECT format('%s on %s', polname, relname) FROM pg_policy JOIN pg_class AS c ON c.oid = polrelid"
        " WHERE relnamespace = to_regnamespace($1)",
        schema,
    )
    return {row[0] for row in rows}


async def _left(connection: Connection, old: str) -> set[str]:
    """Views and functions elsewhere that read what is now in the old schema."""
    return {row[0] for row in await connection.fetch(_READS_OLD, old)}


async def _move(connection: Connection, source: str, target: str, names: Sequence[str]) -> None:
    tables = await connection.fetch(
        "SELECT c.relname FROM pg_class AS c LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid"
        " LEFT JOIN pg_class AS p ON p.oid = i.inhparent"
        " WHERE c.relnamespace = to_regnamespace($1) AND c.relkind IN ('r', 'p')"
        " AND coalesce(p.relname, c.relname) = ANY ($2::text[])",
        *(source, list(names)),
    )
    for table in tables:
        await connection.execute(f"ALTER TABLE {source}.{table[0]} SET SCHEMA {target}")


_READS_OLD = """
WITH gone (kind, oid) AS (
    SELECT 'pg_class'::regclass, oid FROM pg_class WHERE relnamespace = to_regnamespace($1)
    UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE pronamespace = to_regnamespace($1)
)
SELECT DISTINCT format('%s.%s', v.relnamespace::regnamespace, v.relname)
FROM gone AS g JOIN pg_depend AS d ON d.refclassid = g.kind AND d.refobjid = g.oid
JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
JOIN pg_class AS v ON v.oid = r.ev_class
WHERE v.relnamespace <> to_regnamespace($1)
UNION
SELECT DISTINCT format('%s.%s', p.pronamespace::regnamespace, p.proname)
FROM gone AS g JOIN pg_depend AS d ON d.refclassid = g.kind AND d.refobjid = g.oid
JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
WHERE p.pronamespace <> to_regnamespace($1)"""
