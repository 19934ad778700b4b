"""The embedded Postgres: a password of its own, a user of its own, and every kind of end survived."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from sandreel_core.embedded.account import SESSION_UIDS, account
from sandreel_core.embedded.postgres import PostgresServer, reason


@pytest.fixture
async def server() -> AsyncIterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="sandreel-pg-") as data:
        # Closed to everybody but us, as a home directory is: the server's user must get through none the less.
        server = PostgresServer(Path(data) / "home" / "postgres", settings={"fsync": "off"})
        server.data.parent.mkdir(mode=0o700)
        async with server:
            yield server


async def ask(server: PostgresServer, sql: str) -> Any:
    connection = await asyncpg.connect(server.dsn(), timeout=10)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_password_is_random_and_ours_alone(server: PostgresServer) -> None:
    path = server.data / "password"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_uid == os.getuid()
    assert len(path.read_text()) >= 24
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(server.dsn().replace("sandreel:", "sandreel:x"), timeout=10)
    assert await ask(server, "SELECT current_setting('listen_addresses')") == "127.0.0.1"
    assert await ask(server, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'") == 0
    assert path.read_text().encode() not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
    assert await ask(server, "SHOW server_encoding") == "UTF8"


async def test_runs_as_nobody_that_a_session_runs_as(server: PostgresServer) -> None:
    uid = Path(f"/proc/{server.pid}").stat().st_uid
    assert uid != 0
    assert uid not in SESSION_UIDS
    user = account()
    assert uid == (user.uid if user else os.getuid())


async def test_data_and_port_are_kept_over_every_kind_of_end(server: PostgresServer) -> None:
    port = server.port
    await ask(server, "CREATE TABLE kept (i int)")
    await server.restart()
    await ask(server, "INSERT INTO kept VALUES (1)")
    await server.kill()
    assert not server.running
    await server.start()
    await ask(server, "INSERT INTO kept VALUES (2)")
    await server.stop()
    assert not (server.cluster / "postmaster.pid").exists()
    await server.start()
    assert await ask(server, "SELECT count(*) FROM kept") == 2
    assert server.port == port


async def test_a_server_that_was_left_running_is_stopped_first(server: PostgresServer) -> None:
    await ask(server, "CREATE TABLE kept (i int)")
    left = server.pid
    async with PostgresServer(server.data) as successor:
        assert successor.pid != left
        assert await ask(successor, "SELECT count(*) FROM kept") == 0


async def test_a_stale_pid_file_stops_nobody(server: PostgresServer) -> None:
    await server.stop()
    path = server.cluster / "postmaster.pid"
    path.write_text(f"{os.getpid()}\n{server.cluster}\n0\n{server.port}\n{server.cluster}\n127.0.0.1\n0 0\nready\n")
    await server.start()
    assert await ask(server, "SELECT 1") == 1


async def test_half_a_cluster_is_made_again(server: PostgresServer) -> None:
    await server.stop()
    server.cluster.rename(server.data / "unfinished")
    await server.start()
    assert await ask(server, "SELECT 1") == 1


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        (
            (
                "creating directory d ... ok\nrunning bootstrap script ... 2026-01-31 12:00:00.000 UTC [7] FATAL:  could not write"
                ' to file "pg_wal/x": No space left on device\nchild process exited with exit code 1\n'
            ),
            'FATAL: could not write to file "pg_wal/x": No space left on device: make room, or give another --data',
        ),
        (
            "The files belong to you.\n\ninitdb: error: directory exists but is not empty\ninitdb: hint: remove it\n",
            "error: directory exists but is not empty",
        ),
        ("waiting for server to start....\nstopped waiting\n", "stopped waiting"),
        ("", "it said nothing"),
    ],
)
def test_of_all_that_a_program_prints_the_line_is_told_that_says_why(printed: str, said: str) -> None:
    assert reason(printed) == said
