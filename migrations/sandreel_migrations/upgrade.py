"""Bring the schema of the views to the newest version. Several may try at once: one does it, the others wait."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from sandreel_core.errors import Misconfigured, Unavailable
from sandreel_migrations.script import run
from sandreel_projections.access import grants
from sandreel_projections.database import CONNECT_S, place, readable
from sandreel_projections.tables import PURPOSE, SCHEMA

# Any number that nobody else's advisory locks use: "reel" in ASCII.
LOCK = 0x7265656C
_RETRY_S = 0.5
# Whoever reads a table that is altered is waited for, and everybody who comes later waits behind us: let go, try again.
_LOCK_WITHIN_MS = 2000
# SQLSTATEs of a server that is starting or stopping, or has no connection to spare; 55P03: a lock was not to be had.
_TRANSIENT = frozenset({"55P03", "57P01", "57P02", "57P03", "53300", "08000", "08003", "08006", "08001", "08004"})
# The comment of the table of versions; behind it, until a rebuild has put another schema in the place of this one, which
# tables lack what had been read before they were there.
VERSIONS = "which migrations this schema has"


def config() -> Config:
    """Alembic's configuration, without a file."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def head() -> str:
    """The newest version."""
    newest = ScriptDirectory.from_config(config()).get_current_head()
    if newest is None:
        raise RuntimeError("there are no migrations")
    return newest


async def upgrade(dsn: str, *, schema: str = SCHEMA, wait_s: float = 60.0) -> str:
    """The version that the schema has now; it is made if it is not there. Waits at most `wait_s` for the server.

    Raises Unavailable when it does not come, Misconfigured for a wrong password, database or right, and for a
    schema that is newer than this program.
    """
    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        try:
            return await _upgrade(dsn, schema)
        except (OSError, TimeoutError) as error:
            problem: Exception = error
        except DBAPIError as error:
            problem = error.orig if isinstance(error.orig, Exception) else error
            state = getattr(error.orig, "sqlstate", None)
            if state is not None and state not in _TRANSIENT:
                raise Misconfigured(f"the views' schema cannot be brought up to date: {_line(problem)}") from error
        except Exception as error:
            state = getattr(error, "sqlstate", None)
            if state is None:
                raise
            if state not in _TRANSIENT:
                raise Misconfigured(f"Postgres at {place(dsn)} refuses: {_line(error)}") from error
            problem = error
        if asyncio.get_running_loop().time() > deadline:
            raise Unavailable(
                f"Postgres at {place(dsn)} was not to be reached for {wait_s:.0f} s: {_line(problem)}; start it, or look at [postgres] dsn"
            )
        await asyncio.sleep(_RETRY_S * (0.5 + random.random()))  # noqa: S311 - jitter


async def _upgrade(dsn: str, schema: str) -> str:
    # asyncpg itself reads the DSN, as everywhere else: SQLAlchemy takes other parameters, and no list of hosts.
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: _connect(dsn))
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            await connection.execute(text(f"SET LOCAL lock_timeout = {_LOCK_WITHIN_MS}"))
            await connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
            if schema == SCHEMA:  # what another one is for, whoever asked for it says
                await connection.execute(text(f"COMMENT ON SCHEMA {schema} IS '{PURPOSE}'"))
            await connection.execute(text(f"SET LOCAL search_path = {schema}"))
            await connection.run_sync(_run, schema)
    finally:
        await engine.dispose()
    return head()


def _run(connection: Connection, schema: str) -> None:
    made = config()
    made.attributes["connection"] = connection
    made.attributes["schema"] = schema
    try:
        comment = _comment(connection, schema, made)
        command.upgrade(made, "head")
    except CommandError as error:
        raise Misconfigured(
            f"the views' schema has a version that this program does not know ({_line(error)}): run a newer sandreel"
        ) from error
    connection.execute(text(f"COMMENT ON TABLE {schema}.schema_version IS '{comment}'"))
    connection.execute(
        text(f"COMMENT ON COLUMN {schema}.schema_version.version_num IS 'number of the newest migration'")
    )
    run(connection, grants(schema))


def _comment(connection: Connection, schema: str, made: Config) -> str:
    """What the table of versions will say, asked before the migrations: tables that they make begin empty, and the projector
    goes on from where it is (a migration says so by `begins_empty`)."""
    if not connection.execute(text(f"SELECT to_regclass('{schema}.schema_version') IS NOT NULL")).scalar():
        return VERSIONS
    if not connection.execute(text(f"SELECT EXISTS (SELECT FROM {schema}.cursors WHERE sequence > 0)")).scalar():  # noqa: S608 - our own
        return VERSIONS  # all is read from the beginning, also behind a restore
    said = connection.execute(text(f"SELECT obj_description('{schema}.schema_version'::regclass)")).scalar() or VERSIONS
    version = connection.execute(text(f"SELECT version_num FROM {schema}.schema_version")).scalar()  # noqa: S608 - our own
    newer = list(ScriptDirectory.from_config(made).iterate_revisions("head", version))
    lacking = sorted(each.revision for each in newer if getattr(each.module, "begins_empty", False))
    return f"{said}; without what was read before {', '.join(lacking)}" if lacking else str(said)


async def _connect(dsn: str) -> asyncpg.Connection[asyncpg.Record]:
    with readable(dsn):
        return await asyncpg.connect(dsn, timeout=CONNECT_S)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
