"""A real Postgres for tests: one server per pytest worker, a fresh database per test.

postgres_server     the server (session scope; a test that kills it must start it again)
empty_database      DSN of a database with nothing in it
database            DSN of a database with the views as `python -m sandreel_migrations` makes them
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from sandreel_core.embedded.postgres import PostgresServer

# Tests kill the server, never the machine: nothing needs to reach the disk.
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "512MB", "max_connections": "60"}


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    # Not pytest's own directory: its parents are closed to the user that the server runs as, and the
    # socket's path would be too long.
    data = Path(tempfile.mkdtemp(prefix="sandreel-pg-"))
    server = PostgresServer(data / "postgres", settings=_SETTINGS)
    server.start_blocking()
    try:
        yield server
    finally:
        server.stop_blocking()
        shutil.rmtree(data)


@pytest.fixture
def empty_database(postgres_server: PostgresServer) -> Iterator[str]:
    yield from _database(postgres_server, "template0")


@pytest.fixture(scope="session")
def _migrated(postgres_server: PostgresServer) -> str:
    from sandreel_migrations.upgrade import upgrade

    name = "migrated"
    asyncio.run(_execute(postgres_server, f"CREATE DATABASE {name} TEMPLATE template0"))
    asyncio.run(upgrade(postgres_server.dsn(name), wait_s=10))
    return name


@pytest.fixture
def database(postgres_server: PostgresServer, _migrated: str) -> Iterator[str]:
    yield from _database(postgres_server, _migrated)


def _database(server: PostgresServer, template: str) -> Iterator[str]:
    if not server.running:
        server.start_blocking()
    name = f"t_{secrets.token_hex(6)}"
    asyncio.run(_execute(server, f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield server.dsn(name)
    if not server.running:
        server.start_blocking()
    asyncio.run(_execute(server, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(server: PostgresServer, statement: str) -> None:
    connection = await asyncpg.connect(server.dsn(), timeout=30)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
