"""The projector as a process, over real servers: killed again and again in the middle, it loses and doubles nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.contract.exec import Stream
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.embedded.postgres import PostgresServer
from sandreel_core.errors import Unavailable
from sandreel_migrations.upgrade import upgrade
from sandreel_projections.projector import Projector
from sandreel_projections.registry import reel_source
from tests.projections.test_projector import everything, fetch, reached, running, until
from tests.support.nats import Connect
from tests.support.script import job, life

SUBJECTS = SessionSubjects("acme", "s1")
CHUNKS: list[tuple[Stream, bytes]] = [("stdout", b"line\n" * 50), ("stderr", b"half"), ("stderr", b" a line\n")]
_RUN = (sys.executable, "-m", "sandreel_projections")


def environment(nats: NatsServer, dsn: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "SANDREEL_BUS_NATS_URLS": nats.url,
        "SANDREEL_BUS_USER": "role",
        "SANDREEL_BUS_PASSWORD": nats.password("role"),
        "SANDREEL_POSTGRES_DSN": dsn,
        "SANDREEL_PROJECTIONS_MAX_BATCH_EVENTS": "20",
        "SANDREEL_PROJECTIONS_LOOK_S": "0.1",
    }


async def publish(bus: JetStreamBus, first: int, last: int) -> int:
    sequence = 0
    for i in range(first, last):
        for subject, body in job(SUBJECTS, f"e{i}", CHUNKS):
            sequence = await append(bus, subject, body)
    return sequence


async def append(bus: JetStreamBus, subject: str, body: bytes) -> int:
    """Again until it is acknowledged, as runnerd does; the log may then hold it twice."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await bus.append(subject, body)
            except Unavailable:
                await bus.wait_connected()


async def test_killed_in_the_middle_again_and_again(
    nats_server: NatsServer, connect_bus: Connect, database: str, empty_database: str, postgres_server: PostgresServer
) -> None:
    env = environment(nats_server, database)
    process = await asyncio.create_subprocess_exec(*_RUN, env=env, stderr=asyncio.subprocess.DEVNULL)
    written = "SELECT sequence FROM reel.cursors WHERE stream = 'REEL-0'"
    try:
        await until(database, written, lambda row: True)
        bus = await connect_bus()
        for subject, body in life(SUBJECTS):
            await bus.append(subject, body)
        for i in range(4):
            last = await publish(bus, i * 50, i * 50 + 50)
            await until(database, written, lambda row, least=last - 200: row["sequence"] > least)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            await process.wait()
            if i == 1:
                await postgres_server.kill()
                await postgres_server.start()
            if i == 2:
                nats_server.kill()
                await nats_server.restart()
            process = await asyncio.create_subprocess_exec(*_RUN, env=env, stderr=asyncio.subprocess.DEVNULL)
        # Something for the last one to write: until then it may not be there yet to be told to end.
        last = await publish(bus, 200, 210)
        await until(database, written, lambda row: row["sequence"] == last)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    await upgrade(empty_database, wait_s=10)
    calm = Projector(bus, empty_database, reel_source(0))
    async with running(calm):
        await reached(calm, last)
    disturbed = await everything(database)
    assert disturbed == await everything(empty_database)
    assert len(disturbed["blocks"]) == 210 * len(CHUNKS)
    [lines] = await fetch(database, "SELECT count(*) AS n FROM reel.exec_lines")
    assert lines["n"] == 210 * 51


async def test_role_says_in_one_line_what_is_wrong(nats_server: NatsServer, empty_database: str) -> None:
    env = environment(nats_server, empty_database)
    process = await asyncio.create_subprocess_exec(*_RUN, env=env, stderr=asyncio.subprocess.PIPE)
    _, said = await asyncio.wait_for(process.communicate(), 60)
    last = said.decode().splitlines()[-1]
    assert process.returncode == 2
    assert last.startswith("sandreel projections: ")
    assert "sandreel_migrations" in last
