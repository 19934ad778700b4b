"""Analysts: each reads the rows of its organisations, by whatever way it asks, and nothing else; and writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from sandreel_core.contract.subjects import CMD
from sandreel_core.errors import AlreadyExists, Malformed, Misconfigured, NotFound
from sandreel_migrations.upgrade import upgrade
from sandreel_projections import analysts
from sandreel_projections.access import GROUP, TABLES, VIEWS, confinement
from sandreel_projections.examples import CREATES, DESTROYED, EXAMPLES, FAILED, PRINTED, QUESTIONS
from sandreel_projections.order import Order
from sandreel_projections.queries import select
from sandreel_projections.rebuild import Rebuild
from sandreel_projections.registry import sources
from tests.projections.test_projector import fetch
from tests.projections.test_rebuild import Told
from tests.projections.test_views import project
from tests.support.analyst import PASSWORD, as_user, unique
from tests.support.story import Story, tell

WITH_ORG = [name for name in (*TABLES, *VIEWS) if name not in ("cursors", "projection_lag")]


@dataclass
class Login:
    name: str
    dsn: str
    connection: asyncpg.Connection[asyncpg.Record]


async def rows(dsn: str, statement: str, role: str | None = None) -> list[tuple[Any, ...]]:
    async with select(dsn, statement, role=role) as answer:
        return [row async for row in answer.rows]


@pytest.fixture
async def story(database: str) -> Story:
    """`default` and `other` have the same story; the one of `default` is given."""
    bus, stories = await tell("default", "other")
    await project(bus, database)
    return stories[0]


@pytest.fixture
async def ann(story: Story, database: str) -> AsyncIterator[Login]:
    name = unique("ann")
    await analysts.add(database, name, ["default"], PASSWORD)
    connection = await asyncpg.connect(as_user(database, name))
    yield Login(name, as_user(database, name), connection)
    await connection.close()
    await analysts.remove(database, name)


async def test_questions_that_analysts_come_with(story: Story, ann: Login) -> None:
    failed, printed, destroyed, creates = [await ann.connection.fetch(q) for q in (FAILED, PRINTED, DESTROYED, CREATES)]
    # The fifth, what a turn cost, is asked in test_turn_views.
    [row] = failed
    assert (row["org"], row["session"], row["why"]) == ("default", "bad", "boot: BOOT_TIMEOUT: it did not come up")
    assert [row["line"] for row in printed] == list(range(1000, 1101))
    assert {row["text"] for row in printed} == {f"line {i} of default-only" for i in range(1000, 1101)}
    [row] = destroyed
    assert (row["actor"], row["command_id"]) == ("eve", story.commands["destroy"])
    assert (row["type"], row["source"]) == ("session.destroy", "/client/eve@laptop")
    assert [(row["stage"], row["creates"]) for row in creates] == [("requested", 2), ("provisioning", 2)]
    assert all(row["p95_ms"] >= 0 for row in creates)
    assert len(QUESTIONS) == 5


@pytest.mark.parametrize("name", EXAMPLES)
async def test_every_example_is_answered(ann: Login, name: str) -> None:
    await ann.connection.fetch(EXAMPLES[name][1])


@pytest.mark.parametrize("name", WITH_ORG)
async def test_rows_of_others_are_not_there(ann: Login, database: str, name: str) -> None:
    everybody = {row[0] for row in await rows(database, f"SELECT DISTINCT org FROM reel.{name}")}
    mine = {row["org"] for row in await ann.connection.fetch(f"SELECT DISTINCT org FROM reel.{name}")}
    assert everybody == {"default", "other"}
    assert mine == everybody & {"default"}


async def test_functions_and_the_quarantine_neither(ann: Login, database: str) -> None:
    for org, found in (("default", 1), ("other", 0)):
        query = f"SELECT * FROM reel.lines_of('{org}', 'demo', 'x-1', 7, 7)"
        assert len(await ann.connection.fetch(query)) == found
        query = f"SELECT * FROM reel.search('{org}', 'line 77 of')"
        assert len(await ann.connection.fetch(query)) == found
    connection = await asyncpg.connect(database)
    for sequence, org in enumerate(("default", "other")):
        await connection.execute(
            "INSERT INTO reel.quarantine (stream, epoch, sequence, partition, cursor, subject, reason, body, at)"
            " VALUES ('REEL-0', 'e', $1, 0, 'c', $2, 'r', '', now())",
            *(sequence, f"evt.0.{org}.s.session"),
        )
    await connection.close()
    assert [row["subject"] for row in await ann.connection.fetch("SELECT subject, at FROM reel.quarantine")] == [
        "evt.0.default.s.session"
    ]
    # A body may hold what a job's environment was given. An earlier version granted it.
    await fetch(database, f"GRANT SELECT ON reel.quarantine TO {GROUP}")
    await upgrade(database)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ann.connection.fetch("SELECT body FROM reel.quarantine")
    assert await ann.connection.fetch("SELECT quarantined_events FROM reel.projection_lag")


@pytest.mark.parametrize("name", ["audit_log", "exec_lines", "execs", "commands", "exec_blocks"])
async def test_a_leaky_function_sees_nothing_of_others(ann: Login, database: str, name: str) -> None:
    """As cheap as can be, so that the planner would like to ask it first; it tells, in a notice, whatever it is given."""
    told: list[str] = []
    ann.connection.add_log_listener(lambda _, message: told.append(str(message)))
    # Where it may make one at all: a database that holds other things too.
    await fetch(database, f"GRANT TEMPORARY ON DATABASE {database.rpartition('/')[2]} TO PUBLIC")
    await ann.connection.execute("SET default_transaction_read_only = off")
    await ann.connection.execute(
        "CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS"
        " $$ BEGIN RAISE NOTICE 'seen %', $1; RETURN true; END $$"
    )
    await ann.connection.fetch(f"SELECT 1 FROM reel.{name} AS t WHERE pg_temp.leak(t.org || ' ' || t.session)")
    assert any("seen default" in each for each in told)
    assert not any("other" in each for each in told)


async def test_neither_errors_nor_statistics_tell(ann: Login, database: str) -> None:
    await fetch(database, "ANALYZE")
    # Were a row of `other` looked at, the division would fail.
    query = "SELECT count(*) FROM reel.sessions WHERE 1 / (CASE org WHEN 'other' THEN 0 ELSE 1 END) = 1"
    assert await ann.connection.fetchval(query) == 2
    stats = await ann.connection.fetch("SELECT most_common_vals::text FROM pg_stats WHERE schemaname = 'reel'")
    assert not any("other" in (row[0] or "") for row in stats)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ann.connection.fetch("SELECT count(*) FROM pg_statistic")
    assert [row["org"] for row in await ann.connection.fetch("SELECT * FROM reel_access.analyst_orgs")] == ["default"]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO reel_access.analyst_orgs (analyst, org) VALUES (CURRENT_USER, 'other')",
        "DELETE FROM reel.sessions",
        "UPDATE reel.execs SET org = 'default'",
        "TRUNCATE reel.exec_blocks",
        "DROP VIEW reel.audit_log",
        "ALTER TABLE reel.sessions DISABLE ROW LEVEL SECURITY",
        "CREATE TABLE reel.mine (i int)",
        "SELECT * FROM reel.schema_version",
        "SET ROLE pg_read_all_data",
        "COPY reel.sessions TO '/tmp/never'",
        "SELECT pg_read_file('/etc/passwd')",
    ],
)
async def test_nothing_is_written_and_nothing_is_taken(ann: Login, statement: str) -> None:
    await ann.connection.execute("SET default_transaction_read_only = off")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ann.connection.execute(statement)


async def test_a_vault_of_the_same_role_is_ours_as_well(database: str) -> None:
    """`sandreel up` keeps the broker's vault beside the views."""
    await fetch(database, "CREATE SCHEMA vault")
    name = unique("ann")
    await analysts.add(database, name, ["default"], PASSWORD)
    may = "SELECT has_database_privilege('public', current_database(), 'TEMPORARY') AS temporary"
    assert await fetch(database, may) == [{"temporary": False}]
    await analysts.remove(database, name)


async def test_what_postgres_lets_everybody_do_is_taken_back(ann: Login, database: str) -> None:
    """In a database that is ours alone; the projector goes on as before (`fixture story` and what runs below)."""
    await ann.connection.execute("SET default_transaction_read_only = off")
    for statement in (
        "SELECT pg_advisory_lock(1919247212, 0)",
        "SELECT pg_try_advisory_lock_shared(1)",
        "SELECT lo_create(0)",
        "CREATE TEMPORARY TABLE mine (i int)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await ann.connection.execute(statement)
    assert await ann.connection.fetch(PRINTED)


@pytest.mark.parametrize(
    "theirs",
    ["CREATE SCHEMA theirs", "CREATE TABLE public.theirs (i int)", "CREATE FUNCTION public.f() RETURNS int RETURN 1"],
)
async def test_in_a_database_that_holds_other_things_nothing_is_taken_from_anybody(database: str, theirs: str) -> None:
    await fetch(database, theirs)
    name = unique("ann")
    await analysts.add(database, name, ["default"], PASSWORD)
    may = "SELECT has_database_privilege('public', current_database(), 'TEMPORARY') AS temporary"
    assert await fetch(database, may) == [{"temporary": True}]
    await fetch_script(database, confinement(database.rpartition("/")[2], "pg_monitor"))
    assert await fetch(database, may) == [{"temporary": False}]
    await analysts.remove(database, name)


async def fetch_script(dsn: str, script: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(script)
    await connection.close()


async def test_what_an_operator_has_revoked_stays_so_when_another_analyst_is_added(ann: Login, database: str) -> None:
    await fetch(database, f"REVOKE SELECT ON reel.ops FROM {GROUP}")
    name = unique("bob")
    await analysts.add(database, name, ["default"], PASSWORD)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ann.connection.fetch("SELECT * FROM reel.ops")
    assert await rows(database, "SELECT DISTINCT org FROM reel.execs", role=name) == [("default",)]
    await analysts.remove(database, name)


async def test_a_reader_that_is_no_analyst_is_told_what_to_do(story: Story, database: str) -> None:
    name = unique("reader")
    await fetch(database, f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    await fetch(database, f"GRANT USAGE ON SCHEMA reel TO {name}")
    await fetch(database, f"GRANT SELECT ON reel.sessions TO {name}")
    query = "SELECT DISTINCT org FROM reel.sessions ORDER BY org"
    with pytest.raises(Misconfigured, match=r"is no analyst.*pg_read_all_data"):
        await rows(as_user(database, name), query)
    await fetch(database, f"GRANT pg_read_all_data TO {name}")
    assert await rows(as_user(database, name), query) == [("default",), ("other",)]
    await fetch(database, f"DROP OWNED BY {name}")
    await fetch(database, f"DROP ROLE {name}")


async def test_days_of_output_are_read_through_their_parent_alone(ann: Login, database: str) -> None:
    [day] = await fetch(
        database, "SELECT relname FROM pg_class WHERE relname LIKE 'exec\\_blocks\\_2%' AND relkind = 'r' LIMIT 1"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ann.connection.fetch(f"SELECT * FROM reel.{day['relname']}")
    assert await ann.connection.fetchval("SHOW default_transaction_read_only") == "on"


@pytest.mark.parametrize("wild", ["_", "defaul_", "DEFAULT", "default-"])
async def test_names_of_organisations_are_compared_exactly(story: Story, database: str, wild: str) -> None:
    name = unique("wild")
    await analysts.add(database, name, [wild], PASSWORD)
    for view in WITH_ORG:
        assert await rows(database, f"SELECT * FROM reel.{view}", role=name) == []
    await analysts.remove(database, name)


async def test_sql_in_the_role_of_an_analyst(ann: Login, database: str) -> None:
    query = "SELECT DISTINCT org FROM reel.audit_log ORDER BY org"
    assert await rows(database, query) == [("default",), ("other",)]
    assert await rows(database, query, role=ann.name) == [("default",)]
    assert await rows(ann.dsn, query) == [("default",)], "an analyst's own DSN works too"
    for nobody in ("nobody", "postgres", GROUP, 'x"; DROP TABLE y'):
        with pytest.raises(NotFound, match="no analyst"):
            await rows(database, query, role=nobody)


async def test_a_removed_analyst_is_out_at_once(story: Story, database: str) -> None:
    name = unique("gone")
    await analysts.add(database, name, ["default", "other", "default"], PASSWORD)
    [found] = [each for each in await analysts.everyone(database) if each.name == name]
    assert (found.orgs, found.can_log_in) == (("default", "other"), True)
    connection, ended = await asyncpg.connect(as_user(database, name)), asyncio.Event()
    connection.add_termination_listener(lambda _: ended.set())
    assert await connection.fetchval("SELECT count(DISTINCT org) FROM reel.sessions") == 2
    with pytest.raises(AlreadyExists):
        await analysts.add(database, name, ["other"], PASSWORD)
    await analysts.remove(database, name)
    await asyncio.wait_for(ended.wait(), 20)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(as_user(database, name))
    with pytest.raises(NotFound):
        await analysts.remove(database, name)


async def test_a_login_that_something_else_holds_loses_its_rights_all_the_same(database: str) -> None:
    name = unique("ann")
    await analysts.add(database, name, ["default"], PASSWORD)
    await fetch(database, f"GRANT SELECT ON reel.schema_version TO {name}")
    with pytest.raises(Misconfigured, match=r"not dropped: .*schema_version"):
        await analysts.remove(database, name)
    assert name not in [each.name for each in await analysts.everyone(database)]
    [role] = await fetch(database, f"SELECT rolcanlogin FROM pg_roles WHERE rolname = '{name}'")
    assert role == {"rolcanlogin": False}
    await fetch(database, f"DROP OWNED BY {name}")
    await analysts.remove(database, name)
    assert not await fetch(database, f"SELECT FROM pg_roles WHERE rolname = '{name}'")
    with pytest.raises(NotFound, match="removed already, or never was"):
        await analysts.remove(database, name)


@pytest.mark.parametrize("name", ["public", "none"])
async def test_words_that_postgres_keeps_are_no_names(database: str, name: str) -> None:
    with pytest.raises(Malformed, match="another name"):
        await analysts.add(database, name, ["default"], PASSWORD)


async def test_analysts_outlive_the_views(ann: Login, database: str) -> None:
    await fetch(database, "DROP SCHEMA reel CASCADE")
    await upgrade(database)
    assert await ann.connection.fetch("SELECT * FROM reel.audit_log") == []


async def test_a_rebuild_keeps_rights_and_what_the_stream_of_commands_has_forgotten(
    story: Story, ann: Login, database: str
) -> None:
    query = "SELECT * FROM reel.commands ORDER BY command_id"
    before = await ann.connection.fetch(query)
    # The oldest of `default`: the stream drops it, as it drops whatever is a week old.
    subject = f"cmd.spawner.default.demo.{story.commands['create']}"
    assert await story.bus.purge(CMD, subject) == 1

    async def make(schema: str) -> str:
        return await upgrade(database, schema=schema, wait_s=10)

    rebuild = Rebuild(story.bus, database, sources(1), make, Told(), Order())
    outcome = await rebuild.run()
    assert outcome.swapped is not None
    assert [each.table for each in outcome.compared if each.differing] == []
    assert await ann.connection.fetch(query) == before
    assert await ann.connection.fetch("SELECT * FROM reel.audit_log WHERE org <> 'default'") == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ann.connection.fetch(f"SELECT * FROM {outcome.swapped}.exec_blocks_{datetime.now(UTC):%Y%m%d}")


async def test_a_role_of_somebody_elses_is_not_taken(database: str) -> None:
    name = unique("theirs")
    await fetch(database, f"CREATE ROLE {name} LOGIN")
    with pytest.raises(AlreadyExists):
        await analysts.add(database, name, ["default"], PASSWORD)
    with pytest.raises(NotFound):
        await analysts.remove(database, name)
    await fetch(database, f"DROP ROLE {name}")


async def test_on_an_operators_own_server_without_a_superuser(empty_database: str) -> None:
    owner, name = unique("owner"), unique("ann")
    database = empty_database.rpartition("/")[2]
    await fetch(empty_database, f"CREATE ROLE {owner} LOGIN PASSWORD '{PASSWORD}'")
    await fetch(empty_database, f"GRANT CREATE ON DATABASE {database} TO {owner}")
    dsn = as_user(empty_database, owner)
    await upgrade(dsn)
    with pytest.raises(Misconfigured, match="CREATEROLE"):
        await analysts.add(dsn, name, ["default"], PASSWORD)
    await fetch(empty_database, f"ALTER ROLE {owner} CREATEROLE")
    # Another database of this server made the group already, as another role.
    await fetch(empty_database, f"GRANT {GROUP} TO {owner} WITH ADMIN OPTION")
    bus, _ = await tell("default", "other")
    await project(bus, dsn)
    await analysts.add(dsn, name, ["default"], PASSWORD)
    query = "SELECT DISTINCT org FROM reel.audit_log ORDER BY org"
    assert await rows(dsn, query) == [("default",), ("other",)]
    assert await rows(dsn, query, role=name) == [("default",)]
    assert await rows(as_user(dsn, name), query) == [("default",)]
    await analysts.remove(dsn, name)
    await fetch(empty_database, f"DROP OWNED BY {owner} CASCADE")
    await fetch(empty_database, f"DROP ROLE {owner}")
