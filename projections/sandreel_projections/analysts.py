"""Logins that read the views, each bound to organisations by row-level security."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from sandreel_core.errors import AlreadyExists, Malformed, Misconfigured, NotFound
from sandreel_core.ids import check_org
from sandreel_projections.access import ACCESS, GROUP, confinement, grants
from sandreel_projections.columns import SCHEMA
from sandreel_projections.database import Connection, connected, translated
from sandreel_projections.scram import verifier

# A role's name in Postgres has at most 63 bytes; lower case, so that it needs no quotes anywhere.
NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
MAX_ORGS = 1000
# Of one login, so that no analyst's programs take the projector's connections away (the embedded server has 50).
MAX_CONNECTIONS = 8
# What a statement of an analyst may take unless the analyst sets it otherwise; and an open transaction that does
# nothing holds back vacuum and the swap of a rebuild.
_STATEMENT_S, _IDLE_S = 300, 60
_SALT_BYTES = 16
# What our logins bear on a server that has others too.
_COMMENT = "sandreel analyst"


@dataclass(frozen=True, slots=True)
class Analyst:
    """`can_log_in` is false where the login was dropped behind our back: its rows are of no use to anybody."""

    name: str
    orgs: tuple[str, ...]
    added_at: datetime
    can_log_in: bool


def check_name(name: str) -> str:
    """Raises Malformed."""
    if not NAME.match(name) or name.startswith("pg_") or name == GROUP:
        raise Malformed(
            f"analyst {name[:80]!r} is not 1 to 63 characters of a-z 0-9 _ - that begin with a letter (and not with pg_)"
        )
    if name in ("public", "none"):
        raise Malformed(f"analyst {name!r} is a word that Postgres keeps for itself: choose another name")
    return name


async def add(dsn: str, name: str, orgs: Sequence[str], password: str) -> None:
    """Make the login. All of it or nothing.

    Raises Malformed, AlreadyExists when the server has a role of that name, Misconfigured when the DSN's own role may
    not make logins.
    """
    check_name(name)
    if not 1 <= len(set(orgs)) <= MAX_ORGS:
        raise Malformed(f"an analyst is bound to 1 to {MAX_ORGS} organisations, not to {len(set(orgs))}")
    for org in orgs:
        check_org(org)
    sent = verifier(password, secrets.token_bytes(_SALT_BYTES))
    async with _operator(dsn) as connection:
        if await connection.fetchval("SELECT to_regclass($1) IS NULL", f"{ACCESS}.analyst_orgs"):
            raise Misconfigured("the views' schema is missing or old: run python -m sandreel_migrations")
        if await connection.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", name):
            raise AlreadyExists(f"the server has a role {name} already: remove it (`sandreel analyst rm {name}`) first")
        await _open(connection)
        await _statement(
            connection,
            "CREATE ROLE %I LOGIN INHERIT NOCREATEDB NOCREATEROLE CONNECTION LIMIT %s PASSWORD %L",
            *(name, str(MAX_CONNECTIONS), sent),
        )
        for setting, value in (
            ("default_transaction_read_only", "on"),
            ("statement_timeout", f"{_STATEMENT_S}s"),
            ("idle_in_transaction_session_timeout", f"{_IDLE_S}s"),
            ("search_path", SCHEMA),
            ("timezone", "UTC"),
        ):
            await _statement(connection, "ALTER ROLE %I SET %I = %L", name, setting, value)
        await _statement(connection, "COMMENT ON ROLE %I IS %L", name, _COMMENT)
        await _statement(connection, f"GRANT {GROUP} TO %I", name)
        if not await connection.fetchval("SELECT pg_has_role($1, 'SET')", name):
            # Who is no superuser needs it to see what the analyst sees (`sandreel sql --role`), and to end its sessions.
            await _statement(connection, "GRANT %I TO CURRENT_USER", name)
        await connection.execute(f"DELETE FROM {ACCESS}.analyst_orgs WHERE analyst = $1", name)  # noqa: S608 - our own
        await connection.executemany(
            f"INSERT INTO {ACCESS}.analyst_orgs (analyst, org) VALUES ($1, $2)",  # noqa: S608 - our own
            [(name, org) for org in sorted(set(orgs))],
        )


async def remove(dsn: str, name: str) -> None:
    """It sees nothing from here on; its sessions are ended and its login is dropped.

    Raises NotFound, and Misconfigured when something else holds the login: it can log in no more then, and the same
    call drops it when that is gone.
    """
    async with _operator(dsn) as connection:
        if not await connection.fetchval(_HELD, name, _COMMENT):
            await _known(connection, name)
        await connection.execute(f"DELETE FROM {ACCESS}.analyst_orgs WHERE analyst = $1", name)  # noqa: S608 - our own
        if await connection.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", name):
            await _statement(connection, "ALTER ROLE %I NOLOGIN", name)
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND pid <> pg_backend_pid()",
                name,
            )
    # Apart, so that what was taken away stays so where the login cannot be dropped.
    async with _operator(dsn) as connection:
        if await connection.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", name):
            await _statement(connection, "DROP ROLE %I", name)


# A login that an earlier `remove` could not drop: ours, and nobody can log in with it.
_HELD = """
SELECT EXISTS (
    SELECT FROM pg_roles WHERE rolname = $1 AND NOT rolcanlogin AND shobj_description(oid, 'pg_authid') = $2)"""


async def _open(connection: Connection) -> None:
    """Let the group read the views where it may not yet: what an operator has taken from it since stays taken. And in a
    database that is ours alone take back what Postgres lets everybody do, where we may."""
    if not await connection.fetchval(_OPENED, GROUP, SCHEMA):
        await connection.execute(grants(SCHEMA))
    found = await connection.fetchrow(_OURS_ALONE, SCHEMA)
    if found is not None:
        await connection.execute(confinement(found["database"], found["owner"]))


_OPENED = """
SELECT coalesce((SELECT has_schema_privilege(oid, to_regnamespace($2), 'USAGE') FROM pg_roles WHERE rolname = $1), false)"""
# One row where a superuser asks, nothing but what is ours is there (the views, and the broker's vault where it is the
# same role's), and PUBLIC still may what Postgres lets it.
_OURS_ALONE = """
SELECT quote_ident(current_database()) AS database, quote_ident(pg_get_userbyid(n.nspowner)) AS owner
FROM pg_namespace AS n
WHERE n.nspname = $1
  AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
  AND has_database_privilege('public', current_database(), 'TEMPORARY')
  AND NOT EXISTS (SELECT FROM pg_namespace AS other
                  WHERE other.nspname !~ '^(pg_.*|information_schema|public|reel|reel_.*)$'
                    AND NOT (other.nspname = 'vault' AND other.nspowner = n.nspowner))
  AND NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('public'))
  AND NOT EXISTS (SELECT FROM pg_proc WHERE pronamespace = to_regnamespace('public'))"""


async def everyone(dsn: str) -> list[Analyst]:
    """By name. Raises Misconfigured, Unavailable."""
    async with _operator(dsn) as connection:
        rows = await connection.fetch(
            "SELECT a.analyst, array_agg(a.org ORDER BY a.org) AS orgs, min(a.added_at) AS added_at,"  # noqa: S608
            " coalesce(bool_or(r.rolcanlogin), false) AS can_log_in"
            f" FROM {ACCESS}.analyst_orgs AS a LEFT JOIN pg_roles AS r ON r.rolname = a.analyst"
            " GROUP BY a.analyst ORDER BY a.analyst"
        )
    return [Analyst(row["analyst"], tuple(row["orgs"]), row["added_at"], row["can_log_in"]) for row in rows]


async def become(connection: Connection, name: str) -> None:
    """For the rest of the transaction the connection sees what this analyst sees. Raises NotFound, Misconfigured."""
    with _explained():
        await _known(connection, name)
        await _statement(connection, "SET LOCAL ROLE %I", name)


async def _known(connection: Connection, name: str) -> None:
    found = f"SELECT count(*) FROM {ACCESS}.analyst_orgs WHERE analyst = $1"  # noqa: S608 - our own
    if not await connection.fetchval(found, name):
        raise NotFound(
            f"there is no analyst {name[:80]!r}: it is removed already, or never was (`sandreel analyst ls` lists them)"
        )


@asynccontextmanager
async def _operator(dsn: str) -> AsyncGenerator[Connection, None]:
    """One transaction in the name of the DSN's own role."""
    async with connected(dsn, "analysts") as connection:
        with _explained():
            async with connection.transaction():
                yield connection


async def _statement(connection: Connection, form: str, *values: str) -> None:
    """Statements about roles take no parameters: Postgres itself puts quotes around the values."""
    arguments = ", ".join(f"${i}::text" for i in range(2, len(values) + 2))
    await connection.execute(await connection.fetchval(f"SELECT format($1, {arguments})", form, *values))


class _explained:  # noqa: N801 - reads as a statement
    """What an operator's own server does not allow, with what to do about it; everything else as usual."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            raise Misconfigured(
                f"Postgres refuses: {' '.join(str(error).split())}; the role of [postgres] dsn needs CREATEROLE and must"
                f" own the views, or be a superuser (see docs/views.md)"
            ) from error
        if isinstance(error, asyncpg.DependentObjectsStillExistError):
            held = " ".join(f"{error}: {error.detail or ''}".split())[:500]
            raise Misconfigured(
                f"the login sees nothing and cannot log in any more, but is not dropped: {held}; take that away"
                " (`DROP OWNED BY` in each database that is named), then run the same command again"
            ) from error
        if isinstance(error, asyncpg.PostgresError):
            with translated():
                raise error
