"""Backup and restore where NATS and Postgres are an operator's own: the log is lost, and comes back with what was archived."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.archive import archive
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.port import Bus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.clock import new_id
from sandreel_core.contract import exec as x
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.settings import CONFIG
from sandreel_migrations.upgrade import upgrade
from sandreel_projections.order import Order, Outcome
from sandreel_projections.projector import Projector
from sandreel_projections.rebuild import Rebuild
from sandreel_projections.registry import sources
from tests.projections.test_projector import CHUNKS, fetch, reached, running
from tests.projections.test_rebuild import Told
from tests.support.nats import Connect
from tests.support.script import AT, Message, job, life
from tests.support.shell import Shell

SUBJECTS = SessionSubjects("acme", "s1")
BLOCKS = "SELECT exec, stream, n, data FROM reel.exec_blocks ORDER BY exec, n"
EXECS = "SELECT exec, phase, exit_code, stdout_lines FROM reel.execs ORDER BY exec"
COMMANDS = "SELECT command_id, type, actor, sequence FROM reel.command_log ORDER BY command_id"


@pytest.fixture
async def bus(
    nats_server: NatsServer, connect_bus: Connect, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> JetStreamBus:
    """The settings are an operator's own file."""
    settings = tmp_path / "own.toml"
    lines = [
        *("[bus]", f'nats_urls = ["{nats_server.url}"]', 'user = "role"'),
        *(f'password = "{nats_server.password("role")}"', "[postgres]", f'dsn = "{database}"'),
        *("[spawner]", 'runnerd_nats_user = "runnerd"', 'runnerd_nats_password = "x"'),
    ]
    (tmp_path / "data").mkdir(mode=0o700)
    # The other two as `sandreel up` writes them.
    for path in (settings, *(tmp_path / "data" / name for name in ("client.toml", "roles.toml"))):
        path.write_text("\n".join([*lines, ""]))
    monkeypatch.setenv(CONFIG, str(settings))
    bus = await connect_bus()
    await ensure_installation(bus)
    return bus


async def put(bus: Bus, messages: Sequence[Message]) -> int:
    return [await bus.append(*each) for each in messages][-1]


async def project(bus: Bus, dsn: str) -> None:
    for source in sources(1):
        projector = Projector(bus, dsn, source)
        async with running(projector):
            await reached(projector, (await bus.state(source.stream)).last_sequence)


async def rebuilt(bus: Bus, dsn: str, **order: Any) -> Outcome:
    async def make(schema: str) -> str:
        return await upgrade(dsn, schema=schema, wait_s=20)

    return await Rebuild(bus, dsn, sources(1), make, Told(), Order(**order)).run()


def asked(exec_id: str) -> Message:
    id = new_id()
    subject = SUBJECTS.command("runnerd", id)
    command = x.Start(exec=exec_id, argv=["true"])
    return subject, encode(seal(command, id=id, source="/test", subject=subject, time=AT, actor="ann"))


async def test_the_log_is_lost_and_comes_back_with_what_was_archived(
    bus: JetStreamBus, database: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shell, kept, target = Shell(data), data / "archive", tmp_path / "b"
    await put(bus, [*life(SUBJECTS), *job(SUBJECTS, "old", CHUNKS), asked("old")])
    await project(bus, database)
    assert await archive(bus, 0, kept)
    await put(bus, [*job(SUBJECTS, "new", CHUNKS), asked("new")])
    await project(bus, database)
    before = [await fetch(database, query) for query in (EXECS, BLOCKS, COMMANDS)]
    done = await shell.here("backup", "create", str(target), "--json")
    assert (done.code, done.err) == (0, "")
    # What the copy has not: an exec that ends, and is archived, behind it; and its command, which CMD would forget.
    gone = job(SUBJECTS, "gone", CHUNKS)
    await put(bus, [*gone, asked("gone")])
    await project(bus, database)
    assert await archive(bus, 0, kept)
    commands = await fetch(database, COMMANDS)
    assert len(commands) == 3

    async with running(Projector(bus, database, sources(1)[0])) as task:
        refused = await shell.here("backup", "restore", str(target), "--replace")
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "stop every role first" in refused.err
        assert not task.done()
    for name in await bus.stream_names():
        await bus.drop_stream(name)
    restored = await shell.here("backup", "restore", str(target), "--json")
    assert (restored.code, restored.err) == (0, "")
    told = json.loads(restored.out)
    [of_log] = [each for each in told["streams"] if each["stream"] == "REEL-0"]
    assert (of_log["lost"], of_log["known_from"], told["archive_missing"]) == (len(gone), "the views", [])

    # The history of commands is in no stream for longer than a week, and stays.
    assert await fetch(database, COMMANDS) == commands
    assert await fetch(database, EXECS) == []
    await ensure_installation(bus)
    await project(bus, database)
    assert {row["exec"] for row in await fetch(database, BLOCKS)} == {"new"}, "the archive is read by a rebuild"
    outcome = await rebuilt(bus, database, archive=kept, accept_differences=True)
    assert (outcome.swapped is not None, outcome.uncompared) == (True, [])
    # All that the copy had is there again; of what was archived behind its end, nothing.
    assert [await fetch(database, query) for query in (EXECS, BLOCKS)] == before[:2]
    assert await fetch(database, COMMANDS) == commands
    await put(bus, job(SUBJECTS, "later", CHUNKS))
    await project(bus, database)
    outcome = await rebuilt(bus, database, archive=kept)
    assert (outcome.differing, bool(outcome.swapped)) == (0, True)
