"""What `sandreel backup` writes and refuses, and as whom: against a NATS server with streams, without roles."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from sandreel_bridge.gateway.store import documents
from sandreel_bridge.index import streams as turn_streams
from sandreel_bridge.prompts import prompts
from sandreel_core.backup.loss import loss
from sandreel_core.backup.manifest import begun, read
from sandreel_core.backup.postgres import Place
from sandreel_core.backup.streams import Returned, in_order, ours, put_back
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.port import Stream, StreamState
from sandreel_core.bus.streams import ensure_installation, streams
from sandreel_core.egress.register import EGRESS, Register
from sandreel_core.egress.register import documents as egress_documents
from sandreel_core.egress.rules import Scope
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.errors import Denied, Misconfigured
from sandreel_core.spawner.quota import slots
from tests.support.nats import Connect
from tests.support.shell import Shell


@pytest.fixture
async def bus(nats_server: NatsServer, connect_bus: Connect, tmp_path: Path) -> JetStreamBus:
    bus = await connect_bus()
    await ensure_installation(bus)
    # Larger than a chunk, however well it is compressed.
    for number in range(8):
        await bus.append(f"evt.0.o.s.exec.e{number}", os.urandom(100_000))
    await bus.append("cmd.spawner.o.s.0", b"{}")
    lines = [
        "[bus]",
        f'nats_urls = ["{nats_server.url}"]',
        'user = "role"',
        f'password = "{nats_server.password("role")}"',
    ]
    for name in ("client", "roles"):
        (tmp_path / f"{name}.toml").write_text("\n".join([*lines, ""]))
    return bus


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


async def test_streams_come_back_with_the_same_messages_and_another_epoch(
    bus: JetStreamBus, shell: Shell, tmp_path: Path
) -> None:
    before, target = await bus.state("REEL-0"), tmp_path / "b"
    done = await shell.here("backup", "create", str(target), "--json")
    assert (done.code, json.loads(done.out)["dump_bytes"]) == (0, None)
    manifest = read(target)
    assert [each.name for each in manifest.streams] == ["DEAD", "REEL-0", "CMD"]
    assert [path.stat().st_mode & 0o077 for path in (target, target / "streams" / "REEL-0.snapshot")] == [0, 0]
    bodies = [await bus.get("REEL-0", sequence) for sequence in range(1, 9)]
    await bus.append("evt.0.o.s.exec.lost", b"lost")

    silent: Any = lambda stream, done_bytes: None  # noqa: E731
    with pytest.raises(Misconfigured, match=r"there is already DEAD .*REEL-0 \(up to 9\).*--replace"):
        await put_back(bus, target, manifest.streams, epoch="e2", replace=False, report=silent)
    returned = await put_back(bus, target, manifest.streams, epoch="e2", replace=True, report=silent)
    after = await bus.state("REEL-0")
    assert (after.epoch, before.epoch != "e2") == ("e2", True)
    assert (after.last_sequence, after.messages, after.bytes) == (8, 8, before.bytes)
    assert [await bus.get("REEL-0", sequence) for sequence in range(1, 9)] == bodies
    commands = await bus.state("CMD")
    assert (commands.epoch, commands.restored_at, commands.partitions) == ("e2", 1, 1)
    (reel,) = (loss(each, []) for each in returned if each.copy.name == "REEL-0")
    assert (reel.restored_to, reel.last_known, reel.lost, reel.known_from) == (8, 9, 1, "the stream")
    await ensure_installation(bus)
    assert (await bus.state("CMD")).restored_at == 1, "roles that start leave it there"


async def test_a_backup_is_whole_or_none(bus: JetStreamBus, shell: Shell, tmp_path: Path) -> None:
    target = tmp_path / "b"
    assert (await shell.here("backup", "create", str(target))).code == 0
    assert (await shell.here("backup", "verify", str(target))).code == 0
    again = await shell.here("backup", "create", str(target))
    assert (again.code, "holds a backup already" in again.err) == (2, True)

    path = target / "streams" / "REEL-0.snapshot"
    body = path.read_bytes()
    path.write_bytes(body[:1000] + bytes([body[1000] ^ 1]) + body[1001:])
    for command in ("verify", "restore"):
        damaged = await shell.here("backup", command, str(target))
        assert (damaged.code, damaged.err.count("\n"), "the digest differs" in damaged.err) == (2, 1, True)
    path.write_bytes(body[:-1])
    assert f"has {len(body) - 1} bytes" in (await shell.here("backup", "verify", str(target))).err
    path.unlink()
    assert "cannot be read" in (await shell.here("backup", "verify", str(target))).err
    path.write_bytes(body)
    (target / "manifest.json").unlink()
    unfinished = await shell.here("backup", "verify", str(target))
    assert (unfinished.code, "it was not finished" in unfinished.err) == (2, True)
    nowhere = await shell.here("backup", "verify", str(tmp_path / "nowhere"))
    assert (nowhere.code, "there is no such directory" in nowhere.err) == (2, True)


async def test_a_manifest_cannot_point_out_of_its_directory(bus: JetStreamBus, shell: Shell, tmp_path: Path) -> None:
    target = tmp_path / "b"
    assert (await shell.here("backup", "create", str(target))).code == 0
    manifest = target / "manifest.json"
    manifest.write_text(manifest.read_text().replace("streams/CMD.snapshot", "../roles.toml"))
    done = await shell.here("backup", "verify", str(target))
    assert (done.code, "which is not in the backup" in done.err) == (2, True)
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 2'))
    assert "use a newer one" in (await shell.here("backup", "verify", str(target))).err


async def test_what_fails_leaves_nothing(bus: JetStreamBus, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "client.toml").write_text(
        (tmp_path / "client.toml").read_text() + '[postgres]\ndsn = "postgresql://u:geheim@127.0.0.1:1/x"\n'
    )
    target = tmp_path / "b"
    done = await shell.here("backup", "create", str(target))
    assert (done.code, list(target.iterdir()), "geheim" in done.err) == (2, [], False)
    assert done.err.startswith("sandreel: pg_dump failed with 1")
    assert (await shell.here("backup", "create", str(target), "--no-postgres")).code == 0


async def test_two_backups_into_one_directory(bus: JetStreamBus, shell: Shell, tmp_path: Path) -> None:
    """The second is refused, and takes nothing of the first away."""
    target = tmp_path / "b"
    with begun(target):
        (target / "streams").mkdir()
        done = await shell.here("backup", "create", str(target))
        assert (done.code, done.err.count("\n"), "another backup is being written" in done.err) == (2, 1, True)
        assert [path.name for path in target.iterdir()] == ["streams"]
        (target / "streams").rmdir()
    assert (await shell.here("backup", "create", str(target))).code == 0


async def test_a_disk_that_is_full_leaves_nothing(bus: JetStreamBus, shell: Shell, tmp_path: Path) -> None:
    """As a limit on the size of one file, which fails the same calls."""
    target = tmp_path / "b"
    argv = shell.argv("backup", "create", str(target))
    child = await asyncio.create_subprocess_exec(
        *("prlimit", "--fsize=300000", *argv), stderr=asyncio.subprocess.PIPE, env=shell.environ
    )
    async with asyncio.timeout(60):
        _, said = await child.communicate()
    assert (child.returncode, list(target.iterdir())) == (2, [])
    assert said.decode().splitlines()[-1] == f"sandreel: {target} cannot be written to: file too large"


async def test_streams_of_somebody_elses_are_neither_copied_nor_touched(
    bus: JetStreamBus, shell: Shell, tmp_path: Path
) -> None:
    """An account of an operator's own may have others; and slots that were taken after the backup do not outlive a restore."""
    target = tmp_path / "b"
    await bus.ensure([Stream("THEIRS", ("theirs.>",), 1 << 20), Stream("REEL-OF-MINE", ("mine.>",), 1 << 20)])
    assert (await shell.here("backup", "create", str(target))).code == 0
    manifest = read(target)
    assert [each.name for each in manifest.streams] == ["DEAD", "REEL-0", "CMD"]
    await bus.ensure([slots()])
    silent: Any = lambda stream, done_bytes: None  # noqa: E731
    with pytest.raises(Misconfigured, match=r"there is already DEAD .*SLOTS"):
        await put_back(bus, target, manifest.streams, epoch="e2", replace=False, report=silent)
    await put_back(bus, target, manifest.streams, epoch="e2", replace=True, report=silent)
    assert await bus.stream_names() == ["CMD", "DEAD", "REEL-0", "REEL-OF-MINE", "THEIRS"]


async def test_who_may_reach_what_is_brought_back_where_it_is_gone_and_only_there(
    bus: JetStreamBus, shell: Shell, tmp_path: Path
) -> None:
    """Without a list a session reaches everything: so a restore neither forgets one nor takes back what was tightened since."""
    target, register, org = tmp_path / "b", Register(bus), Scope("acme")
    silent: Any = lambda stream, done_bytes: None  # noqa: E731
    await bus.ensure([egress_documents()])
    await register.allow(org, ["*.example.com", "example.org"])
    assert (await shell.here("backup", "create", str(target))).code == 0
    copies = read(target).streams
    await register.allow(org, ["example.org"])
    for _ in range(2):  # the second one as after a restore that was cut short
        await put_back(bus, target, copies, epoch="e2", replace=True, report=silent)
        found = (await register.rules())[org]
        assert not isinstance(found, str)
        assert found.allow == ["example.org"]
    older = [each for each in copies if each.name != EGRESS]  # of a version that did not copy it
    await put_back(bus, target, older, epoch="e2", replace=True, report=silent)
    assert org in await register.rules()
    for name in await bus.stream_names():
        await bus.drop_stream(name)
    await put_back(bus, target, copies, epoch="e2", replace=False, report=silent)
    found = (await register.rules())[org]
    assert not isinstance(found, str)
    assert found.allow == ["*.example.com", "example.org"]


def test_every_stream_of_an_installation_is_known_to_backups() -> None:
    beside = (slots(), documents(), egress_documents(), *turn_streams(), prompts())
    made = [each.name for each in (*streams(partitions=2), *beside)]
    assert ours([*made, "THEIRS"]) == made


@pytest.mark.parametrize("user", ["runnerd", "client"])
async def test_nobody_else_may_copy_the_log(bus: JetStreamBus, connect_bus: Connect, user: str) -> None:
    other = await connect_bus(user)
    with pytest.raises(Denied):
        async with aclosing(other.take_copy("REEL-0", {})) as chunks:
            await anext(chunks)


async def test_the_user_of_backups_copies_and_does_nothing_else(bus: JetStreamBus, connect_bus: Connect) -> None:
    copier, head = await connect_bus("backup"), dict[str, Any]()
    async with aclosing(copier.take_copy("REEL-0", head)) as chunks:
        size = sum([len(chunk) async for chunk in chunks])
    assert size > 800_000
    assert head["state"]["last_seq"] == 8
    for attempt in (
        copier.drop_stream("REEL-0"),
        copier.annotate("REEL-0", {"epoch": "mine"}),
        copier.purge("REEL-0", "evt.>"),
        copier.append("evt.0.o.s.exec.e9", b"forged"),
        copier.get("REEL-0", 1),
        copier.put_copy("REEL-1", head, chunks),
    ):
        with pytest.raises(Denied):
            await attempt
    assert (await bus.state("REEL-0")).last_sequence == 8


def test_the_order_of_copies() -> None:
    found = in_order(["CMD", "DEAD", "REEL-0", "REEL-1", "SLOTS"])
    assert found == ["DEAD", "SLOTS", "REEL-0", "REEL-1", "CMD"], "what says who is closed first, commands last"


@pytest.mark.parametrize(
    ("lost", "places", "says"),
    [
        (None, [], "nobody knows how far"),
        (
            None,
            [Place(stream="REEL-0", epoch="e1", sequence=9, seen=12, at="t")],
            "5 events are lost, up to t (the views",
        ),
        (None, [Place(stream="REEL-0", epoch="e0", sequence=9, seen=12)], "nobody knows how far"),
        (None, [Place(stream="REEL-1", epoch="e1", sequence=9, seen=12)], "nobody knows how far"),
        (20, [Place(stream="REEL-0", epoch="e1", sequence=9, seen=12)], "13 events are lost (the stream reached 20)"),
        (7, [], "the stream knew of nothing behind it"),
    ],
)
def test_what_is_said_to_be_lost(lost: int | None, places: list[Place], says: str) -> None:
    from sandreel_core.backup.manifest import File, StreamCopy

    def state(epoch: str, last: int) -> StreamState:
        return StreamState("REEL-0", epoch, 1, last, last, 1, 1)

    file = File(path="x", bytes=1, sha256="")
    copy = StreamCopy(name="REEL-0", epoch="e1", last_sequence=7, last_at=None, messages=7, head={}, file=file)
    returned = Returned(copy, state("e2", 7), None if lost is None else state("e1", lost))
    assert says in str(loss(returned, places))
