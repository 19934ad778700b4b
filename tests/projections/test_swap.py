"""What is no row goes along too: who may read what, policies, and tables that no log leads to."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Conflict
from sandreel_migrations.upgrade import upgrade
from sandreel_projections.order import Order
from sandreel_projections.projector import Projector
from sandreel_projections.rebuild import Rebuild
from sandreel_projections.registry import reel_source
from sandreel_projections.tables import SCHEMA
from tests.projections.test_projector import CHUNKS, PACE, fetch, new_bus, put, reached, running
from tests.projections.test_rebuild import Told, rebuilt
from tests.support.script import job, life

ACME, OTHER = SessionSubjects("acme", "s1"), SessionSubjects("other", "s2")

# What a later migration may add: a table that is an operator's, and a policy that reads it.
_EXTRA = """
SET search_path = {schema};
CREATE TABLE logins (login text PRIMARY KEY, org text);
CREATE FUNCTION my_org() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER
    BEGIN ATOMIC SELECT org FROM logins WHERE login = session_user; END;
ALTER TABLE execs ENABLE ROW LEVEL SECURITY;
DO $$ DECLARE other text; BEGIN
    FOR other IN SELECT polname FROM pg_policy WHERE polrelid = 'execs'::regclass LOOP
        EXECUTE format('DROP POLICY %I ON execs', other);
    END LOOP;
END $$;
CREATE POLICY mine ON execs FOR SELECT USING (org = my_org());
CREATE VIEW failed WITH (security_invoker = true) AS SELECT org, exec FROM execs WHERE exit_code <> 0 OR my_org() IS NULL;
COMMENT ON VIEW failed IS 'execs that failed';
CREATE VIEW counted WITH (security_invoker = true) AS SELECT org, count(*) AS execs FROM execs GROUP BY org;
"""


@pytest.fixture
async def bus() -> MemoryBus:
    return await new_bus("e1")


@pytest.fixture
async def login(database: str) -> AsyncIterator[str]:
    """A role of its own: those of a server are shared by all its databases."""
    name = f"analyst_{secrets.token_hex(4)}"
    await fetch(database, f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    yield name
    await fetch(database, f"DROP OWNED BY {name}")
    await fetch(database, f"DROP ROLE {name}")


async def make(dsn: str, schema: str) -> str:
    version = await upgrade(dsn, schema=schema, wait_s=10)
    connection = await asyncpg.connect(dsn)
    await connection.execute(_EXTRA.format(schema=schema))
    await connection.close()
    return version


async def again(bus: MemoryBus, dsn: str, *views: str) -> None:
    async def made(schema: str) -> str:
        return await make(dsn, schema)

    rebuild = Rebuild(bus, dsn, [reel_source(0)], made, Told(), Order(views=views), pace=PACE)
    assert (await rebuild.run()).swapped


@pytest.mark.parametrize("views", [(), ("execs",)])
async def test_an_analyst_sees_the_same_after_a_swap(
    bus: MemoryBus, database: str, login: str, views: tuple[str, ...]
) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(_EXTRA.format(schema=SCHEMA))
    await connection.execute(f"INSERT INTO reel.logins VALUES ('{login}', 'acme')")
    await connection.execute(f"GRANT USAGE ON SCHEMA reel TO {login}")
    await connection.execute(f"GRANT SELECT ON reel.execs, reel.counted TO {login}")
    await connection.execute(f"GRANT SELECT (exec) ON reel.failed TO {login}")
    await connection.close()
    last = await put(bus, [*life(ACME), *job(ACME, "a", CHUNKS), *life(OTHER), *job(OTHER, "b", CHUNKS)])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    server = database.partition("@")[2]
    reader = await asyncpg.connect(f"postgresql://{login}:{login}@{server}")

    async def seen() -> list[object]:
        rows = [dict(row) for row in await reader.fetch("SELECT org, exec FROM reel.execs")]
        rows += [dict(row) for row in await reader.fetch("SELECT * FROM reel.counted")]
        await reader.fetch("SELECT exec FROM reel.failed")
        for forbidden in ("reel.sessions", "reel.logins", "reel.failed", "reel.exec_blocks"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await reader.fetch(f"SELECT * FROM {forbidden}")
        return [*rows]

    async with running(projector):
        await reached(projector, last)
        before = await seen()
        assert before == [{"org": "acme", "exec": "a"}, {"org": "acme", "execs": 1}]
        await again(bus, database, *views)
        assert await seen() == before
        last = await put(bus, job(ACME, "later", CHUNKS))
        await reached(projector, last)
        assert (await seen())[-1] == {"org": "acme", "execs": 2}
    await reader.close()
    assert await fetch(database, "SELECT org FROM reel.logins") == [{"org": "acme"}]
    [said] = await fetch(database, "SELECT obj_description('reel.failed'::regclass) AS comment")
    assert said["comment"] == "execs that failed"
    # Nothing of the live schema hangs on that of the rebuild, or on the old one, which can be dropped.
    assert not await fetch(database, "SELECT FROM pg_namespace WHERE nspname = 'reel_rebuild'")
    for row in await fetch(database, r"SELECT nspname FROM pg_namespace WHERE nspname LIKE 'reel\_old\_%'"):
        await fetch(database, f"DROP SCHEMA {row['nspname']} CASCADE")
    assert await fetch(database, "SELECT org, execs FROM reel.counted ORDER BY org") == [
        {"org": "acme", "execs": 2}, {"org": "other", "execs": 1},
    ]  # fmt: skip


@pytest.mark.parametrize("views", [(), ("execs",)])
async def test_what_an_operator_has_built_on_a_view_is_not_lost_silently(
    bus: MemoryBus, database: str, views: tuple[str, ...]
) -> None:
    """Views of somebody's own would hang on the old table: the swap says so, and does nothing."""
    last = await put(bus, [*life(ACME), *job(ACME, "a", CHUNKS)])
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
        await fetch(database, "CREATE VIEW public.mine AS SELECT exec FROM reel.execs")
        with pytest.raises(Conflict, match=r"nothing was swapped: public.mine would still read the old tables"):
            await rebuilt(bus, database, views=views)
        assert await fetch(database, "SELECT * FROM public.mine") == [{"exec": "a"}]
        await fetch(database, "ALTER VIEW public.mine SET SCHEMA reel")
        with pytest.raises(Conflict, match=r"nothing was swapped: .*mine would") as refused:
            await rebuilt(bus, database, views=views)
        assert "\n" not in str(refused.value)
        last = await put(bus, job(ACME, "b", CHUNKS))
        await reached(projector, last)
        await fetch(database, "DROP VIEW reel.mine")
        told = Told()
        assert (await rebuilt(bus, database, told, views=views)).swapped
        assert told.names[0] == "goes_on"
