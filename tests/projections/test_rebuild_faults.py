"""Rebuilds while things die: the rebuild, the projector, Postgres; and servers that have no room."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from sandreel_core.archive import archive
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.port import Item
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.embedded.postgres import PostgresServer
from sandreel_core.errors import Misconfigured, Unavailable
from sandreel_migrations.upgrade import upgrade
from sandreel_projections.projector import Projector
from sandreel_projections.registry import reel_source
from sandreel_projections.schemas import FRESH
from tests.projections.test_projector import CHUNKS, everything, fetch, new_bus, put, reached, running, until
from tests.projections.test_projector_faults import environment
from tests.projections.test_quarantine import Away
from tests.projections.test_rebuild import PACE, Told, rebuilt
from tests.support.nats import Connect
from tests.support.script import job, life

SUBJECTS = SessionSubjects("acme", "s1")
KILLS = 50
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
async def bus() -> MemoryBus:
    return await new_bus("e1")


class Interrupted(MemoryBus):
    """Calls `meanwhile` once, in the middle of the first read that has got as far as `after` events."""

    def __init__(self, bus: MemoryBus, after: int, meanwhile: Callable[[], Coroutine[Any, Any, None]]) -> None:
        super().__init__(bus.server)
        self._left = after
        self._meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = meanwhile

    async def follow(
        self, stream: str, filters: Sequence[str], *, after: int = 0, live: bool = True
    ) -> AsyncGenerator[Item, None]:
        async for item in super().follow(stream, filters, after=after, live=live):
            if isinstance(item, list):
                for i in range(0, len(item), 10):
                    self._left -= 10
                    if self._left <= 0 and self._meanwhile is not None:
                        meanwhile, self._meanwhile = self._meanwhile, None
                        # To its end, also when whoever reads is cancelled by what it does.
                        self._doing = asyncio.ensure_future(meanwhile())
                        await asyncio.shield(self._doing)
                    yield item[i : i + 10]
            else:
                yield item


async def filled(bus: MemoryBus, execs: int) -> int:
    return await put(bus, [*life(SUBJECTS), *(m for i in range(execs) for m in job(SUBJECTS, f"e{i:03}", CHUNKS))])


async def equals_a_calm_one(bus: Any, disturbed: str, empty: str, last: int) -> None:
    await upgrade(empty, wait_s=20)
    calm = Projector(bus, empty, reel_source(0))
    async with running(calm):
        await reached(calm, last)
    assert await everything(disturbed) == await everything(empty)


class Forks:
    """`tests/support/forks.py`, and whom it has forked."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._pids: asyncio.Queue[int] = asyncio.Queue()
        self.ended: dict[int, int] = {}
        self._alive: set[int] = set()

    @classmethod
    async def start(cls, env: dict[str, str]) -> Forks:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.forks"),
            env=env | {"PYTHONPATH": str(REPOSITORY)},
            cwd=REPOSITORY,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return cls(process)

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            match line.split():
                case [pid]:
                    self._pids.put_nowait(int(pid))
                case [pid, code]:
                    self.ended[int(pid)] = int(code)

    async def fork(self, what: str) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n".encode())
        pid = await asyncio.wait_for(self._pids.get(), 20)
        self._alive.add(pid)
        return pid

    def kill(self, pid: int) -> None:
        self._alive.discard(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def close(self) -> None:
        for pid in [*self._alive]:
            if pid not in self.ended:
                self.kill(pid)
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.wait_for(self._process.wait(), 20)


async def test_rebuild_and_projector_killed_fifty_times(
    nats_server: NatsServer, connect_bus: Connect, database: str, empty_database: str
) -> None:
    """SIGKILL at any moment, also of a swap: each time the same command goes on, and no event counts twice."""
    bus = await connect_bus()
    log = [*life(SUBJECTS), *(m for i in range(60) for m in job(SUBJECTS, f"e{i:03}", CHUNKS))]
    await ensure_installation(bus)
    for subject, body in log:
        await bus.append(subject, body)
    chance = random.Random(7)
    forks = await Forks.start(environment(nats_server, database))
    reading = asyncio.ensure_future(forks.read())
    finished = 0
    try:
        projector = await forks.fork("projector")
        await until(database, "SELECT sequence FROM reel.cursors", lambda row: row["sequence"] > 100)
        for kill in range(KILLS):
            rebuild = await forks.fork("rebuild")
            for subject, body in job(SUBJECTS, f"meanwhile-{kill:03}", CHUNKS):
                await bus.append(subject, body)
            await asyncio.sleep(chance.uniform(0.02, 0.3))
            finished += forks.ended.get(rebuild) == 0
            forks.kill(rebuild)
            if chance.random() < 0.3:
                forks.kill(projector)
                projector = await forks.fork("projector")
        last = 0
        for subject, body in job(SUBJECTS, "the-last", CHUNKS):
            last = await bus.append(subject, body)
        rebuild = await forks.fork("rebuild")
        async with asyncio.timeout(60):
            while rebuild not in forks.ended:
                await asyncio.sleep(0.02)
        assert forks.ended[rebuild] == 0
        await until(database, "SELECT sequence FROM reel.cursors", lambda row: row["sequence"] == last)
    finally:
        await forks.close()
        await reading
    assert finished < KILLS  # else it was killed in nothing
    await equals_a_calm_one(bus, database, empty_database, last)


async def test_postgres_killed_in_the_middle_of_a_rebuild(
    bus: MemoryBus, database: str, postgres_server: PostgresServer, empty_database: str
) -> None:
    last = await filled(bus, 100)
    projector = Projector(bus, database, reel_source(0), pace=PACE)

    async def restart() -> None:
        await postgres_server.kill()
        await put(bus, job(SUBJECTS, "while-away", CHUNKS))
        await postgres_server.start()

    async with running(projector):
        await reached(projector, last)
        told = Told()
        outcome = await rebuilt(Interrupted(bus, 300, restart), database, told)
        assert (outcome.differing, bool(outcome.swapped)) == (0, True)
        assert "waits" in told.names
        assert told.names[-1] == "goes_on"
        last = await put(bus, job(SUBJECTS, "later", CHUNKS))
        await reached(projector, last)
    await equals_a_calm_one(bus, database, empty_database, last)


async def test_a_log_that_is_away_is_waited_for_and_then_said(bus: MemoryBus, database: str) -> None:
    await filled(bus, 2)
    async with asyncio.timeout(20):
        with pytest.raises(Unavailable, match=r"nothing of REEL-0 came for 0.1 s; .*the same command goes on with it"):
            await rebuilt(Away(bus.server), database, patience_s=0.1)


async def test_out_of_connections_is_waited_for_and_then_said(bus: MemoryBus, database: str) -> None:
    last = await filled(bus, 20)
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
        taken: list[Any] = []
        with suppress(asyncpg.TooManyConnectionsError):
            while True:
                taken.append(await asyncpg.connect(database))
        try:
            with pytest.raises(Unavailable, match="the same command goes on with it") as given_up:
                await rebuilt(bus, database, patience_s=0.1)
            assert "\n" not in str(given_up.value)
            told = Told()
            task = asyncio.ensure_future(rebuilt(bus, database, told))
            async with asyncio.timeout(20):
                while "waits" not in told.names:
                    await asyncio.sleep(0.01)
        finally:
            for connection in taken:
                await connection.close()
        assert (await task).swapped


async def test_a_full_disk_is_waited_for(bus: MemoryBus, database: str, empty_database: str) -> None:
    """No file system is filled here: the server says what it says then (SQLSTATE 53100), for the projector as well."""
    last = await filled(bus, 60)
    projector = Projector(bus, database, reel_source(0), pace=PACE)

    async def fill() -> None:
        for schema in ("reel", FRESH):
            await fetch(database, f"CREATE FUNCTION {schema}.full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                        " RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$")  # fmt: skip
            await fetch(
                database, f"CREATE TRIGGER full_disk BEFORE INSERT ON {schema}.execs EXECUTE FUNCTION {schema}.full()"
            )
        await put(bus, job(SUBJECTS, "while-full", CHUNKS))

    async with running(projector) as going:
        await reached(projector, last)
        told = Told()
        task = asyncio.ensure_future(rebuilt(Interrupted(bus, 200, fill), database, told))
        async with asyncio.timeout(20):
            while "waits" not in told.names:
                await asyncio.sleep(0.01)
        assert any("No space left" in str(fields) for name, fields in told.events if name == "waits")
        for schema in ("reel", FRESH):
            await fetch(database, f"DROP FUNCTION {schema}.full() CASCADE")
        outcome = await task
        assert (outcome.differing, bool(outcome.swapped)) == (0, True)
        last = await put(bus, job(SUBJECTS, "later", CHUNKS))
        await reached(projector, last)
        assert not going.done()
    await equals_a_calm_one(bus, database, empty_database, last)


async def test_execs_that_are_archived_under_a_rebuild_are_not_missed(
    bus: MemoryBus, database: str, tmp_path: Path
) -> None:
    last = await filled(bus, 40)
    projector = Projector(bus, database, reel_source(0), pace=PACE)

    async def move() -> None:
        assert await archive(bus, 0, tmp_path)

    async with running(projector):
        await reached(projector, last)
        told = Told()
        outcome = await rebuilt(Interrupted(bus, 100, move), database, told, archive=tmp_path)
    assert ("begun_anew", {"why": "execs were archived while it read"}) in told.events
    assert (outcome.differing, bool(outcome.swapped)) == (0, True)


async def test_an_archive_file_that_is_not_whole_is_named(bus: MemoryBus, database: str, tmp_path: Path) -> None:
    await filled(bus, 5)
    [manifest] = await archive(bus, 0, tmp_path)
    path = tmp_path / "REEL-0" / manifest.file
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(Misconfigured, match=manifest.file) as caught:
        await rebuilt(bus, database, archive=tmp_path)
    assert "\n" not in str(caught.value)


async def test_analysts_who_read_for_long_do_not_keep_the_swap_from_happening(bus: MemoryBus, database: str) -> None:
    """The schema is renamed under a reader, who goes on in the tables that it has begun with."""
    last = await filled(bus, 10)
    projector = Projector(bus, database, reel_source(0), pace=PACE)
    reader = await asyncpg.connect(database)
    async with running(projector):
        await reached(projector, last)
        async with reader.transaction():
            [before] = await reader.fetch("SELECT count(*) FROM reel.execs, reel.sessions, reel.projection_lag")
            assert (await rebuilt(bus, database)).swapped
            last = await put(bus, job(SUBJECTS, "later", CHUNKS))
            await reached(projector, last)
        [after] = await reader.fetch("SELECT count(*) FROM reel.execs, reel.sessions, reel.projection_lag")
    await reader.close()
    assert (before["count"], after["count"]) == (10, 11)


async def test_the_command_from_beginning_to_end(
    nats_server: NatsServer, connect_bus: Connect, database: str, tmp_path: Path
) -> None:
    """As an operator types it, with lines for people and for programs. Processes: few, they are slow to start."""
    bus = await connect_bus()
    await ensure_installation(bus)
    for subject, body in [*life(SUBJECTS), *job(SUBJECTS, "e1", CHUNKS), *job(SUBJECTS, "e2", CHUNKS)]:
        last = await bus.append(subject, body)
    env = environment(nats_server, database) | {"HOME": str(tmp_path)}
    for name in ("SANDREEL_PROJECTIONS_MAX_BATCH_EVENTS", "SANDREEL_PROJECTIONS_LOOK_S"):
        del env[name]

    async def sandreel(*arguments: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sandreel_core.cli", "projections", *arguments),
            env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, said = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, out.decode(), said.decode()

    projector = Projector(bus, database, reel_source(0), pace=PACE)
    async with running(projector):
        await reached(projector, last)
        await fetch(database, "UPDATE reel.execs SET cwd = E'\\x1b[2J' WHERE exec = 'e2'")
        code, out, said = await sandreel("rebuild", "--view", "reel.execs")
        assert (code, said) == (1, "")
        assert "execs (org=acme, session=s1, exec=e2) cwd: live '\\x1b[2J', rebuilt '/workspace'" in out
        assert "\x1b" not in out
        code, out, _ = await sandreel("status")
        assert code == 0
        assert f"up to date; at {last} of {last}" in out
        assert f"led by {os.getpid()}@" in out
        assert "reel_rebuild: a rebuild of exec_blocks, execs, interrupted" in out
        code, out, _ = await sandreel("rebuild", "--view", "execs", "--accept-differences", "--json")
        events = [json.loads(line) for line in out.splitlines()]
        assert (code, events[-1]["event"], events[0]["event"]) == (0, "swapped", "goes_on")
        code, out, _ = await sandreel("drop-old")
        assert (code, out.count("dropped")) == (0, 1)
        code, out, said = await sandreel("rebuild", "--to", "nowhere")
        assert (code, out, said.count("\n")) == (2, "", 1)
    assert await fetch(database, "SELECT cwd FROM reel.execs WHERE exec = 'e2'") == [{"cwd": "/workspace"}]
