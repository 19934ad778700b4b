"""The schemas beside the live one: that of a rebuild, which says in its comment what it is, and old ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from sandreel_core.errors import Misconfigured
from sandreel_projections.database import Connection, translated
from sandreel_projections.tables import SCHEMA

# There is one rebuild at a time, and one place where it can be gone on with.
FRESH = f"{SCHEMA}_rebuild"
# What was swapped out: `reel_old_20261125t190000_123`, until an operator drops it.
OLD = f"{SCHEMA}_old_"


class Mark(Struct, frozen=True, kw_only=True):
    """What an unfinished rebuild is, as its schema's comment keeps it: gone on with only if all of it is still so.

    tables   that it makes; empty: all
    version  of the schema; program: of the folds
    epochs   of the streams, by name
    archive  the archive files that it reads
    """

    begun_at: datetime
    version: str
    program: str
    tables: list[str]
    epochs: dict[str, str]
    archive: list[str]


class Old(Struct, frozen=True, kw_only=True):
    """A schema that was swapped out."""

    schema: str
    bytes: int


async def exists(connection: Connection, schema: str) -> bool:
    with translated():
        return bool(await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", schema))


async def mark_of(connection: Connection, schema: str = FRESH) -> Mark | None:
    """None when there is no such schema, or it was not even begun with."""
    with translated():
        comment = await connection.fetchval(
            "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = $1", schema
        )
    try:
        return msgspec.json.decode(comment or b"", type=Mark)
    except msgspec.DecodeError:
        return None


async def set_mark(connection: Connection, mark: Mark, schema: str = FRESH) -> None:
    with translated():
        await set_comment(connection, schema, msgspec.json.encode(mark).decode())


async def set_comment(connection: Connection, schema: str, comment: str) -> None:
    literal = await connection.fetchval("SELECT quote_literal($1::text)", comment)
    await connection.execute(f"COMMENT ON SCHEMA {schema} IS {literal}")


async def drop(connection: Connection, schema: str) -> None:
    """Day by day first, so that no transaction takes more locks than the server has room for."""
    if schema == SCHEMA:
        raise ValueError("the live schema is not dropped")
    with translated():
        days = await connection.fetch(
            "SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = to_regnamespace($1) AND c.relispartition"
            " AND c.relkind = 'r'",
            schema,
        )
        for day in days:
            await connection.execute(f"DROP TABLE {schema}.{day['relname']}")
        await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


async def old_schemas(connection: Connection) -> list[Old]:
    """Oldest first, with what they take on disk."""
    with translated():
        rows = await connection.fetch(
            "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, $1) ORDER BY nspname", OLD
        )
    return [Old(schema=row[0], bytes=await size_of(connection, row[0])) for row in rows]


async def size_of(connection: Connection, schema: str) -> int:
    """What it takes on disk, in bytes."""
    with translated():
        size = await connection.fetchval(
            "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class"
            " WHERE relnamespace = to_regnamespace($1) AND relkind = 'r'",
            schema,
        )
    return int(size)


async def tables_behind(connection: Connection, names: Iterable[str], schema: str = FRESH) -> set[str]:
    """The tables that these tables and views of the schema read, through any number of views.

    Raises Misconfigured for a name that is none.
    """
    found: set[str] = set()
    for name in names:
        with translated():
            rows = await connection.fetch(_BEHIND, schema, name)
        if not rows:
            raise Misconfigured(f"--view {name[:80]!r} is no view or table of {SCHEMA}: `sandreel sql` lists them")
        found |= {row["relname"] for row in rows if row["relkind"] in (b"r", b"p")}
    return found


async def columns_of(connection: Connection, schema: str) -> dict[str, tuple[str, ...]]:
    """By table, the names of its columns in order; without the days of those that have days."""
    with translated():
        rows = await connection.fetch(
            "SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) AS names FROM pg_class AS c"
            " JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
            " WHERE c.relnamespace = to_regnamespace($1) AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
            " GROUP BY c.relname",
            schema,
        )
    return {row["relname"]: tuple(row["names"]) for row in rows}


async def version_of(connection: Connection, schema: str) -> str | None:
    """The newest migration of a schema; None when it is not there."""
    with translated():
        if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{schema}.schema_version"):
            return None
        version = await connection.fetchval(f"SELECT version_num FROM {schema}.schema_version")  # noqa: S608 - our own
    return None if version is None else str(version)


def kept_tables(present: Iterable[str], written: Sequence[str]) -> list[str]:
    """Tables that no log leads to (which logins see which orgs): their rows are an operator's, and go along."""
    return sorted(set(present) - set(written) - {"cursors", "quarantine", "schema_version"})


_BEHIND = """
WITH RECURSIVE behind (oid) AS (
    SELECT c.oid FROM pg_class AS c
    WHERE c.relnamespace = to_regnamespace($1) AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm')
    UNION
    SELECT d.refobjid FROM behind AS b
    JOIN pg_rewrite AS r ON r.ev_class = b.oid
    JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                       AND d.refclassid = 'pg_class'::regclass
)
SELECT c.relname, c.relkind FROM behind JOIN pg_class AS c USING (oid)"""
