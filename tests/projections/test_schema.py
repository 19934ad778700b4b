"""The schema that migrations make, and the one that the code believes in."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from sandreel_core.errors import Unavailable
from sandreel_migrations.check import views
from sandreel_migrations.upgrade import config, head, upgrade
from sandreel_projections.registry import sources
from sandreel_projections.source import check
from sandreel_projections.tables import metadata


async def test_migrated_schema_is_the_metadata(database: str) -> None:
    engine = create_async_engine(database.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.connect() as connection:
        differences = await connection.run_sync(_compare)
    await engine.dispose()
    assert differences == []


def _compare(connection: Connection) -> list[Any]:
    def ours(name: str | None, kind: str, parents: Mapping[Any, Any]) -> bool:
        return name == "reel" if kind == "schema" else name != "schema_version"

    options = {"include_schemas": True, "include_name": ours, "compare_type": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def test_every_entry_of_the_registry_fits_its_table() -> None:
    for source in sources(2):
        check(source)


async def test_a_schema_of_another_name_is_the_same_and_needs_no_other(empty_database: str) -> None:
    """What a rebuild makes beside the live one: nothing in it may name `reel`."""
    await upgrade(empty_database, schema="reel_other", wait_s=10)
    connection = await asyncpg.connect(empty_database)
    assert await connection.fetchval("SELECT to_regnamespace('reel') IS NULL") is True
    await connection.execute("ALTER SCHEMA reel_other RENAME TO reel")
    for view in ("exec_lines", "projection_lag", "lines_of('o', 's', 'e')"):
        assert await connection.fetch(f"SELECT * FROM reel.{view}") == []
    await connection.close()
    assert await upgrade(empty_database) == head()
    await test_migrated_schema_is_the_metadata(empty_database)


async def test_a_schema_beside_the_live_one_waits_for_no_analyst(database: str) -> None:
    """Every statement of an analyst reads the table that says what it may see; both schemas share it."""
    reader = await asyncpg.connect(database)
    async with reader.transaction():
        await reader.execute("SELECT FROM reel_access.analyst_orgs")
        async with asyncio.timeout(20):
            assert await upgrade(database, schema="reel_other", wait_s=0.1) == head()
    async with reader.transaction():
        await reader.execute("LOCK TABLE reel_access.analyst_orgs IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(20):
            with pytest.raises(Unavailable, match="lock timeout"):
                await upgrade(database, schema="reel_another", wait_s=0.1)
    await reader.close()


async def test_every_table_view_and_column_says_what_it_is(database: str) -> None:
    connection = await asyncpg.connect(database)
    silent = await connection.fetch(
        """SELECT c.relname, a.attname FROM pg_class c LEFT JOIN pg_attribute a
               ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           WHERE c.relnamespace = 'reel'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
             AND (coalesce(obj_description(c.oid, 'pg_class'), '') = ''
                  OR coalesce(col_description(c.oid, a.attnum), '') = '')"""
    )
    functions = await connection.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'reel'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL"
    )
    await connection.close()
    assert silent == []
    assert functions == []


async def test_upgrade_is_done_once_by_whoever_comes_first(empty_database: str) -> None:
    assert await asyncio.gather(*(upgrade(empty_database, wait_s=10) for _ in range(3))) == [head()] * 3
    assert await upgrade(empty_database) == head()


async def test_program_says_in_one_line_what_is_wrong(empty_database: str) -> None:
    wrong = empty_database.replace("sandreel:", "sandreel:x", 1)
    code, said = await _run(wrong)
    assert code == 2
    assert said.startswith("sandreel migrations: ")
    assert said.count("\n") == 1
    assert "password" in said
    assert wrong.split(":")[2].split("@")[0] not in said

    connection = await asyncpg.connect(empty_database)
    assert (await _run(empty_database))[0] == 0
    await connection.execute("UPDATE reel.schema_version SET version_num = '9999'")
    code, said = await _run(empty_database)
    assert (code, said.count("\n")) == (2, 1)
    assert "newer" in said
    await connection.close()


async def test_a_dsn_is_read_as_everywhere_else_and_never_quoted(empty_database: str) -> None:
    assert await upgrade(f"{empty_database}?sslmode=prefer", wait_s=10) == head()
    code, said = await _run("postgresql://sandreel:hunt/er2@127.0.0.1:1/x")
    assert (code, said.count("\n")) == (2, 1)
    assert "cannot be read" in said
    assert "hunt" not in said


async def _run(dsn: str) -> tuple[int | None, str]:
    env = {"PATH": os.environ["PATH"], "SANDREEL_POSTGRES_DSN": dsn}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sandreel_migrations"),
        env=env,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, said.decode()


async def at(dsn: str, version: str) -> None:
    """Bring an empty database to this version."""

    def run(connection: Connection) -> None:
        made = config()
        made.attributes |= {"connection": connection, "schema": "reel"}
        command.upgrade(made, version)

    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA reel"))
        await connection.execute(text("SET LOCAL search_path = reel"))
        await connection.run_sync(run)
    await engine.dispose()


async def test_commands_that_were_read_before_bear_the_epoch_of_the_stream_they_were_read_from(
    empty_database: str,
) -> None:
    """From 0002 on, with rows."""
    await at(empty_database, "0002")
    connection = await asyncpg.connect(empty_database)
    await connection.execute(
        "INSERT INTO reel.cursors (stream, epoch, build, sequence, stream_sequence) VALUES ('CMD', 'c1', 'b', 1, 1)"
    )
    await connection.execute(
        "INSERT INTO reel.command_log (org, session, command_id, role, stored_at, sequence)"
        " VALUES ('o', 's', 'c', 'spawner', now(), 1)"
    )
    assert await upgrade(empty_database) == head()
    assert await connection.fetchval("SELECT epoch FROM reel.command_log") == "c1"
    await connection.close()
    await test_migrated_schema_is_the_metadata(empty_database)


async def test_turns_that_were_read_before_are_kept_and_are_their_organisations_alone(empty_database: str) -> None:
    """From 0003 on, with rows: `ops` becomes a view over the table that it was."""
    await at(empty_database, "0003")
    connection = await asyncpg.connect(empty_database)
    await connection.execute(
        "INSERT INTO reel.ops (org, session, turn, phase, tool_uses, tool_errors, steers_queued, steers_delivered,"
        " unreadable_events, first_cursor, last_cursor) VALUES ('o', 's', 't', 'running', 1, 0, 0, 0, 0, 'a', 'b')"
    )
    assert await upgrade(empty_database) == head()
    row = await connection.fetchrow("SELECT state, tool_uses, steers_consumed, recent_events, calls FROM reel.ops")
    assert row is not None
    assert tuple(row) == ("running", 1, 0, "[]", 0)
    policies = "SELECT polname FROM pg_policy WHERE polrelid = 'reel.turns'::regclass ORDER BY polname"
    assert [each[0] for each in await connection.fetch(policies)] == ["operators", "own_orgs"]
    await connection.close()
    await test_migrated_schema_is_the_metadata(empty_database)


async def test_an_upgrade_says_which_tables_lack_what_was_read_before(empty_database: str) -> None:
    """The projector goes on from its cursor: what came before a table was there is not in it, until a rebuild reads it again."""
    await at(empty_database, "0003")
    connection = await asyncpg.connect(empty_database)
    await connection.execute(
        "INSERT INTO reel.cursors (stream, epoch, build, sequence, stream_sequence) VALUES ('REEL-0', 'e', 'b', 7, 7)"
    )
    for _ in range(2):  # and it is said until then, however often a role starts
        assert await upgrade(empty_database) == head()
        schema = next(each for each in await views(empty_database) if each.name == "views' schema")
        assert schema.level == "warn"
        assert "without what was read before 0004, 0005" in schema.found
        assert "rebuild --accept-differences" in schema.mend
    await connection.execute("TRUNCATE reel.cursors")  # as a restore does: all is read again
    await connection.close()
    assert await upgrade(empty_database) == head()
    assert [each.level for each in await views(empty_database) if each.name == "views' schema"] == ["ok"]


async def test_an_upgrade_of_views_that_have_read_nothing_lacks_nothing(empty_database: str) -> None:
    await at(empty_database, "0001")
    assert await upgrade(empty_database) == head()
    assert [each.level for each in await views(empty_database) if each.name == "views' schema"] == ["ok"]
