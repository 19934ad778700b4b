"""runnerd as a whole, in this process, over the memory twin: commands and their outcomes, requests, drain, the end."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandreel_core.bus.memory import MemoryBus, MemoryServer
from sandreel_core.clock import new_id
from sandreel_core.contract import exec as x
from sandreel_core.contract import requests as r
from sandreel_core.contract import session as s
from sandreel_core.contract import workspace as w
from sandreel_core.contract.boot import BootSettings
from sandreel_core.contract.session import CommandRefused, CommandSettled
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Full, Malformed, Misconfigured, NotFound, Refused, Unavailable
from sandreel_core.ids import uuid7
from sandreel_core.log import Log
from sandreel_runnerd import commands as commands_module
from sandreel_runnerd import daemon as daemon_module
from sandreel_runnerd import feed as feed_module
from sandreel_runnerd import service as service_module
from sandreel_runnerd.children import Children
from sandreel_runnerd.daemon import DECLARED_DEAD, ENDED, Daemon
from sandreel_runnerd.leftovers import is_alive
from tests.support.desk import Desk
from tests.support.mark import OURS
from tests.support.site import BODY, web_site


class Boot:
    """A daemon that runs, its desk, and the memory server between them."""

    def __init__(self, daemon: Daemon, desk: Desk, server: MemoryServer, bus: MemoryBus, workspace: Path) -> None:
        self.daemon = daemon
        self.desk = desk
        self.server = server
        self.bus = bus
        self.workspace = workspace
        self.task = asyncio.ensure_future(daemon.run())


@asynccontextmanager
async def booted(workspace: Path, **given: Any) -> AsyncIterator[Boot]:
    server = MemoryServer()
    desk_bus, bus = MemoryBus(server), MemoryBus(server)
    desk = Desk(desk_bus, SessionSubjects("acme", "s1"))
    desk.env, desk.limits = given.pop("env", {}), given.pop("limits", s.Limits())
    workspace.mkdir(exist_ok=True)
    boot = BootSettings(
        nats_urls=["memory"],
        org="acme",
        session="s1",
        boot_id="1-1",
        token="t",
        installation=OURS,
        workspace=str(workspace),
        spool_bytes=1024 * 1024,
        **({"heartbeat_s": 0.05} | given),
    )
    async with desk.open():
        running = Boot(Daemon(boot, bus, Children(), Log("runnerd"), fetch_private=True), desk, server, bus, workspace)
        try:
            async with asyncio.timeout(10):
                while not desk.beats and not running.task.done():
                    await asyncio.sleep(0.005)
            yield running
        finally:
            running.daemon.end()
            async with asyncio.timeout(25):
                await asyncio.wait({running.task})
            if running.task.exception() is not None:
                raise running.task.exception()  # type: ignore[misc]


@pytest.fixture
async def boot(tmp_path: Path) -> AsyncIterator[Boot]:
    async with booted(tmp_path / "workspace") as running:
        yield running


async def test_a_start_is_accepted_started_recorded_and_exits(boot: Boot) -> None:
    id = await boot.desk.send(x.Start(exec="e", argv=["sh", "-c", "echo hello; echo oops >&2; exit 3"]))
    exited = await boot.desk.ended("e")
    assert (exited.exit_code, exited.reason, exited.lines) == (3, "exited", {"stdout": 1, "stderr": 1})
    assert boot.desk.kinds("e")[:2] == ["exec.accepted", "exec.started"]
    assert boot.desk.kinds("e")[-1] == "exec.exited"
    assert [event.n for event in boot.desk.events("e")] == list(range(1, len(boot.desk.events("e")) + 1))
    assert boot.desk.output("e") == b"hello\n"
    accepted = boot.desk.events("e")[0]
    assert (accepted.causationid, accepted.actor, accepted.data.boot_id) == (id, "tester", "1-1")
    assert accepted.source == "/runnerd/acme/s1/1-1"


async def test_a_start_that_is_delivered_again_runs_once(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", shell="echo ran >> log"))
    await boot.desk.ended("e")
    # The server forgets its consumers: the next feed begins behind what was handled, or before.
    boot.server.crash()
    boot.server.start()
    assert isinstance(await boot.desk.ask(w.PatchEnv(set={"A": "1"})), w.EnvPatched)
    assert len(boot.desk.feeds) >= 2
    refused = await boot.desk.ask(x.Start(exec="e", shell="echo ran >> log"))
    assert isinstance(refused, CommandRefused)
    assert refused.code == "DUPLICATE_EXEC"
    assert (boot.workspace / "log").read_text() == "ran\n"


@pytest.mark.parametrize(
    ("start", "code"),
    [
        (x.Start(exec="e"), "BAD_REQUEST"),
        (x.Start(exec="e", argv=["a"], shell="b"), "BAD_REQUEST"),
        (x.Start(exec="e", argv=["a\0b"]), "BAD_REQUEST"),
        (x.Start(exec="e", argv=["cat"], stdin_base64="*"), "BAD_REQUEST"),
        (x.Start(exec="e", argv=["pwd"], cwd="/etc"), "INVALID_CWD"),
        (x.Start(exec="e", argv=["pwd"], cwd="nowhere"), "INVALID_CWD"),
        (
            x.Start(exec="e", argv=["pwd"], secret_env={"A": x.SecretRef(role="broker", lease="l")}),
            "SECRET_UNAVAILABLE",
        ),
    ],
)
async def test_a_bad_start_is_refused_before_it_is_accepted(boot: Boot, start: x.Start, code: str) -> None:
    refused = await boot.desk.ask(start)
    assert isinstance(refused, CommandRefused)
    assert refused.code == code
    assert boot.desk.events("e") == []
    # And its id is free.
    await boot.desk.send(x.Start(exec="e", argv=["true"]))
    assert (await boot.desk.ended("e")).exit_code == 0


async def test_the_fifth_exec_is_refused_and_execs_do_not_wait_for_each_other(boot: Boot) -> None:
    for index in range(4):
        await boot.desk.send(x.Start(exec=f"e{index}", argv=["cat"], stdin="hold"))
    refused = await boot.desk.ask(x.Start(exec="e4", argv=["true"]))
    assert refused.code == "EXEC_LIMIT"
    duplicate = await boot.desk.ask(x.Start(exec="e0", argv=["true"]))
    assert duplicate.code == "DUPLICATE_EXEC"
    written = await boot.desk.ask(x.WriteStdin(exec="e2", text="hi\n", eof=True))
    assert written == x.StdinWritten(bytes=3, eof=True)
    assert (await boot.desk.ended("e2")).exit_code == 0
    assert boot.desk.output("e2") == b"hi\n"
    health = await boot.desk.request("health", None, r.Health)
    assert health.live_execs == ["e0", "e1", "e3"]
    assert health.boot_id == "1-1"


async def test_the_session_may_ask_for_another_limit(tmp_path: Path) -> None:
    async with booted(tmp_path / "w", limits=s.Limits(execs=1)) as boot:
        await boot.desk.send(x.Start(exec="a", argv=["cat"], stdin="hold"))
        assert (await boot.desk.ask(x.Start(exec="b", argv=["true"]))).code == "EXEC_LIMIT"


async def test_cancel_signal_and_keepalive_have_their_outcomes(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", shell="trap 'echo got' USR1; echo up; while :; do sleep 0.02; done"))
    await boot.desk.until(lambda: boot.desk.output("e"))
    assert await boot.desk.ask(x.Signal(exec="e", signal="SIGUSR1")) == x.Signalled(signal="SIGUSR1", why="asked")
    assert (await boot.desk.ask(x.Signal(exec="e", signal="SIGNONE"))).code == "BAD_REQUEST"
    assert (await boot.desk.ask(x.WriteStdin(exec="e", text="x"))).code == "STDIN_CLOSED"
    assert (await boot.desk.ask(x.WriteStdin(exec="e"))).code == "BAD_REQUEST"
    assert (await boot.desk.ask(x.Resize(exec="e", cols=1, rows=1))).code == "BAD_REQUEST"
    assert isinstance(await boot.desk.ask(x.Keepalive(exec="e")), CommandSettled)
    assert await boot.desk.ask(x.Cancel(exec="e")) == x.Signalled(signal="SIGTERM", why="cancelled")
    exited = await boot.desk.ended("e")
    assert exited.reason == "cancelled"
    for command in (x.Cancel(exec="e"), x.Keepalive(exec="e"), x.Signal(exec="never", signal="SIGTERM")):
        assert (await boot.desk.ask(command)).code == "EXEC_NOT_FOUND"


async def test_a_cancel_passes_a_write_that_nobody_reads(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", argv=["sleep", "60"], stdin="hold"))
    stuck = [await boot.desk.send(x.WriteStdin(exec="e", text="x" * 60_000)) for _ in range(20)]
    assert (await boot.desk.ask(x.Cancel(exec="e"))).signal == "SIGTERM"
    await boot.desk.ended("e")
    for id in stuck:
        assert isinstance((await boot.desk.outcome(id)).data, x.StdinWritten | CommandRefused)


async def test_patched_variables_reach_execs_that_start_later(tmp_path: Path) -> None:
    async with booted(tmp_path / "w", env={"SEED": "kept", "PATH": "/evil"}) as boot:
        patched = await boot.desk.ask(w.PatchEnv(set={"A": "1", "http_proxy": "x"}, unset=["HOME"]))
        assert patched == w.EnvPatched(set={"A": "1"}, denied=["HOME", "http_proxy"])
        await boot.desk.send(x.Start(exec="e", shell='echo "$SEED $A $B $SANDREEL_TOKEN"', env={"B": "2"}))
        await boot.desk.ended("e")
        assert boot.desk.output("e") == b"kept 1 2 \n"
        stored, _ = next(pair for pair in boot.desk.stored if pair[1].data == patched)
        stale = await boot.desk.ask(w.PatchEnv(set={"A": "2"}), expectedrevision=f"e1:0:{stored.sequence + 7}")
        assert stale.code == "CONFLICT"
        foreign = await boot.desk.ask(w.PatchEnv(set={"A": "2"}), expectedrevision=f"other:0:{stored.sequence}")
        assert foreign.code == "BAD_REQUEST"
        right = await boot.desk.ask(w.PatchEnv(set={"A": "3"}), expectedrevision=f"e1:0:{stored.sequence}")
        assert right == w.EnvPatched(set={"A": "3"})
        await boot.desk.send(x.Start(exec="f", shell="echo $A"))
        await boot.desk.ended("f")
        assert boot.desk.output("f") == b"3\n"


async def test_a_patch_that_waits_for_the_log_makes_only_those_wait_that_need_it(boot: Boot) -> None:
    """The stream takes no event of the workspace: what is asked of execs goes on, and order is kept."""
    full = True
    await boot.desk.send(x.Start(exec="e", argv=["cat"], stdin="hold"))
    await boot.desk.until(lambda: "exec.started" in boot.desk.kinds("e"))
    workspace = boot.desk.subjects.event("workspace")
    boot.bus.fate = lambda subject, body: Full("no space", 0.01) if full and subject == workspace else None
    first = await boot.desk.send(w.PatchEnv(set={"A": "1"}), expectedrevision="e1:0:0")
    await boot.desk.send(x.Start(exec="between", shell="echo $A"))
    second = await boot.desk.send(w.PatchEnv(set={"A": "2"}))
    await boot.desk.send(x.Start(exec="behind", shell="echo $A"))
    conflict = await boot.desk.send(w.PatchEnv(set={"A": "3"}), expectedrevision="e1:0:0")
    assert isinstance(await boot.desk.ask(x.Keepalive(exec="e")), CommandSettled)
    assert (await boot.desk.ask(x.Cancel(exec="e"))).signal == "SIGTERM"
    await boot.desk.ended("e")
    assert not boot.desk.outcomes(first)
    assert not boot.desk.events("between")
    full = False
    assert [(await boot.desk.ended(exec_id)).exit_code for exec_id in ("between", "behind")] == [0, 0]
    assert [boot.desk.output(exec_id) for exec_id in ("between", "behind")] == [b"1\n", b"2\n"]
    assert (await boot.desk.outcome(first)).data == w.EnvPatched(set={"A": "1"})
    assert (await boot.desk.outcome(second)).data == w.EnvPatched(set={"A": "2"})
    assert (await boot.desk.outcome(conflict)).data.code == "CONFLICT"


async def test_a_patch_that_waits_for_the_log_does_not_keep_runnerd_from_leaving(
    boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "STOP_WITHIN_S", 0.2)
    monkeypatch.setattr(daemon_module, "FLUSH_WITHIN_S", 0.2)
    workspace = boot.desk.subjects.event("workspace")
    boot.bus.fate = lambda subject, body: Full("no space", 0.01) if subject == workspace else None
    await boot.desk.send(w.PatchEnv(set={"A": "1"}), expectedrevision="e1:0:0")
    await boot.desk.send(x.Start(exec="e", argv=["true"]))
    await boot.desk.until(lambda: boot.desk.beats[-1].live_execs == 1)
    boot.daemon.end()
    async with asyncio.timeout(10):
        assert await boot.task == ENDED


async def test_late_and_stale_commands_are_refused(boot: Boot) -> None:
    late = await boot.desk.ask(x.Start(exec="e", argv=["true"]), deadline=datetime.now(UTC) - timedelta(seconds=1))
    assert late.code == "EXPIRED"
    old = uuid7(int((datetime.now(UTC) - timedelta(days=7)).timestamp() * 1000), b"0123456789")
    assert (await boot.desk.ask(x.Start(exec="e", argv=["true"]), id=old)).code == "STALE"
    assert (await boot.desk.ask(x.Cancel(exec="e"), expectedrevision="e1:0:1")).code == "BAD_REQUEST"
    assert boot.desk.events("e") == []


async def test_files_are_written_and_every_change_is_an_event(boot: Boot) -> None:
    data = b"some bytes"
    digest = hashlib.sha256(data).hexdigest()
    stored = await boot.desk.request(
        "write_file",
        r.WriteFile(path="d/f", upload="u", offset=0, base64=base64.b64encode(data).decode(), eof=True, actor="ann"),
        r.FileStored,
    )
    assert stored == r.FileStored(size=10, sha256=digest)
    read = await boot.desk.request("read_file", r.ReadFile(path="d/f"), r.FileChunk)
    assert (base64.b64decode(read.base64), read.sha256, read.eof) == (data, digest, True)
    listing = await boot.desk.request("list_files", r.ListFiles(path="d"), r.FileList)
    assert [entry.name for entry in listing.entries] == ["f"]
    await boot.desk.request("delete_file", r.DeleteFile(path="d/f", actor="bob"), r.Done)
    with pytest.raises(NotFound):
        await boot.desk.request("read_file", r.ReadFile(path="d/f"), r.FileChunk)
    with pytest.raises(Refused, match="UNSAFE_PATH"):
        await boot.desk.request("read_file", r.ReadFile(path="../x"), r.FileChunk)
    await boot.desk.until(lambda: len(boot.desk.stored) == 2)
    assert [event.data for _, event in boot.desk.stored] == [
        w.FileWritten(path="d/f", size=10, sha256=digest, actor="ann"),
        w.FileDeleted(path="d/f", actor="bob"),
    ]


async def test_a_drain_stops_commands_until_it_is_lifted(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", argv=["cat"], stdin="hold"))
    await boot.desk.until(lambda: boot.desk.events("e"))
    until = (await boot.desk.bus.state("CMD")).last_sequence
    drained = await boot.desk.request("drain", r.Drain(commands_until=until), r.Drained)
    assert drained.live_execs == ["e"]
    behind = [await boot.desk.send(w.PatchEnv(set={f"N{index}": "1"})) for index in range(3)]
    assert (await boot.desk.request("health", None, r.Health)).draining
    await asyncio.sleep(0.2)
    assert not any(boot.desk.outcomes(id) for id in behind)
    await boot.desk.request("lift", r.Drain(commands_until=0), r.Done)
    for id in behind:
        assert isinstance((await boot.desk.outcome(id)).data, w.EnvPatched)
        assert len(boot.desk.outcomes(id)) == 1


async def test_a_drain_takes_the_commands_before_it(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", argv=["cat"], stdin="hold"))
    until = (await boot.desk.bus.state("CMD")).last_sequence
    drained = await boot.desk.request("drain", r.Drain(commands_until=until + 5), r.Drained)
    assert drained.live_execs == ["e"]


async def test_a_drain_says_for_how_long_nobody_has_used_the_session(boot: Boot) -> None:
    async def idle_s() -> float:
        drained = await boot.desk.request("drain", r.Drain(commands_until=0), r.Drained)
        assert drained.idle_s is not None
        return drained.idle_s

    before = await idle_s()
    assert before > 0
    assert await idle_s() > before
    with web_site() as url:
        stuck = r.FetchFile(url=f"{url}/stuck", path="got", timeout_s=1)
        download = asyncio.ensure_future(boot.desk.request("fetch_file", stuck, r.FileStored))
        async with asyncio.timeout(20):
            while await idle_s():
                assert not download.done(), "a download is use from its start on"
        with pytest.raises(Refused, match="FETCH_TIMEOUT"):
            await download
        assert await idle_s() > 0


async def test_hold_makes_children_wait_and_the_end_still_comes(boot: Boot) -> None:
    await boot.desk.request("hold", r.Hold(hold=True), r.Done)
    assert (await boot.desk.request("health", None, r.Health)).held
    await boot.desk.send(x.Start(exec="quiet", argv=["true"]))
    assert (await boot.desk.ended("quiet")).exit_code == 0
    await boot.desk.until(lambda: boot.desk.beats[-1].held and boot.desk.beats[-1].sent_messages >= 2)
    assert boot.desk.beats[-1].spool_capacity_bytes == 1024 * 1024
    await boot.desk.send(x.Start(exec="loud", shell="head -c 3000000 /dev/zero | tr '\\0' x"))
    await boot.desk.until(lambda: "exec.started" in boot.desk.kinds("loud"))
    await asyncio.sleep(0.2)
    assert boot.desk.output("loud") == b""
    await boot.desk.request("hold", r.Hold(hold=False), r.Done)
    assert (await boot.desk.ended("loud")).bytes["stdout"] == 3_000_000
    assert boot.desk.output("loud") == b"x" * 3_000_000


async def test_heartbeat_and_health_say_what_is(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", argv=["yes"]))
    last = (await boot.desk.bus.state("CMD")).last_sequence
    await boot.desk.until(lambda: boot.desk.output("e"))
    boot.bus.go_away()
    async with asyncio.timeout(20):
        while boot.daemon._vitals.heartbeat().spool_bytes < 100_000:
            await asyncio.sleep(0.01)
    health = boot.daemon.health()
    assert health.spool_capacity_bytes == 1024 * 1024 >= health.spool_bytes >= 100_000
    assert health.window_messages > 0
    boot.bus.come_back()
    await boot.desk.request("hold", r.Hold(hold=True), r.Done)
    await boot.desk.until(lambda: boot.desk.beats[-1].held)
    assert (boot.desk.beats[-1].live_execs, boot.desk.beats[-1].commands_handled) == (1, last)
    # Output is no use that somebody makes of it: it is idle for longer from beat to beat.
    idle_s, beats = boot.desk.beats[-1].idle_s, len(boot.desk.beats)
    await boot.desk.until(lambda: len(boot.desk.beats) > beats + 1)
    assert boot.desk.beats[-1].idle_s > idle_s > 0
    await boot.desk.request("hold", r.Hold(hold=False), r.Done)
    await boot.desk.send(x.Cancel(exec="e"))
    await boot.desk.ended("e")
    await boot.desk.until(lambda: boot.desk.beats[-1].spool_bytes == boot.desk.beats[-1].live_execs == 0)


async def test_health_says_for_how_long_it_is_connected(boot: Boot) -> None:
    first = await boot.desk.request("health", None, r.Health)
    second = await boot.desk.request("health", None, r.Health)
    assert 0 < first.connected_s < second.connected_s, "not since it was first asked"
    since = boot.daemon._vitals._connected_since
    boot.bus.go_away()
    boot.bus.come_back()
    beats = len(boot.desk.beats)
    await boot.desk.until(lambda: len(boot.desk.beats) > beats + 1)
    assert boot.daemon._vitals._connected_since > since
    assert (await boot.desk.request("health", None, r.Health)).connected_s > 0


async def test_patches_that_wait_for_the_log_are_bounded(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_module, "MAX_PATCHES_WAITING", 2)
    full = True
    workspace = boot.desk.subjects.event("workspace")
    boot.bus.fate = lambda subject, body: Full("no space", 0.01) if full and subject == workspace else None
    waiting = [await boot.desk.send(w.PatchEnv(set={"A": "1"}), expectedrevision="e1:0:0")]
    waiting.append(await boot.desk.send(w.PatchEnv(set={"B": "1"})))
    assert (await boot.desk.ask(w.PatchEnv(set={"C": "1"}))).code == "ENV_BUSY"
    full = False
    for id in waiting:
        assert isinstance((await boot.desk.outcome(id)).data, w.EnvPatched)


async def test_keys_reach_a_terminal(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", argv=["cat"], tty=x.Terminal(cols=80, rows=24)))
    await boot.desk.until(lambda: "exec.started" in boot.desk.kinds("e"))
    keys = r.Keys(exec="e", offset=0, base64=base64.b64encode(b"hi\n").decode())
    for _ in range(2):
        assert await boot.desk.request("keys", keys, r.KeysTaken) == r.KeysTaken(offset=3)
    await boot.desk.until(lambda: boot.desk.output("e").count(b"hi") == 2)
    with pytest.raises(Refused, match="EXEC_NOT_FOUND"):
        await boot.desk.request("keys", r.Keys(exec="x", offset=0, base64=""), r.KeysTaken)


async def test_the_end_stops_execs_and_acknowledges_theirs_first(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", shell="while :; do echo line; sleep 0.01; done"))
    await boot.desk.until(lambda: boot.desk.output("e"))
    boot.daemon.end()
    async with asyncio.timeout(10):
        assert await boot.task == ENDED
    exited = await boot.desk.ended("e", within_s=1)
    assert (exited.reason, exited.signal) == ("stopped", "SIGTERM")
    assert boot.desk.output("e") == b"line\n" * exited.lines["stdout"]


async def test_a_boot_that_is_declared_dead_ends_its_execs_and_leaves(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", shell="echo $$; exec sleep 60"))
    pid = int(await boot.desk.until(lambda: boot.desk.output("e")))
    boot.desk.dead = True
    boot.bus.go_away()
    boot.bus.come_back()
    async with asyncio.timeout(10):
        assert await boot.task == DECLARED_DEAD
        # It has got SIGKILL; the kernel takes a moment to act on it.
        while is_alive(pid):
            await asyncio.sleep(0.01)


async def test_a_boot_that_may_not_be_leaves(tmp_path: Path) -> None:
    server = MemoryServer()
    desk = Desk(MemoryBus(server), SessionSubjects("acme", "s1"))
    desk.dead = True
    settings = BootSettings(
        nats_urls=["memory"], org="acme", session="s1", boot_id="1-1", token="t", installation=OURS,
        workspace=str(tmp_path), spool_bytes=1024 * 1024,
    )  # fmt: skip
    async with desk.open(), asyncio.timeout(10):
        assert await Daemon(settings, MemoryBus(server), Children(), Log("runnerd")).run() == DECLARED_DEAD


async def test_a_server_that_takes_less_than_a_block_of_output_is_refused(tmp_path: Path) -> None:
    """It would turn loud output into gaps."""
    settings = BootSettings(
        nats_urls=["memory"], org="acme", session="s1", boot_id="1-1", token="t", installation=OURS,
        workspace=str(tmp_path), spool_bytes=1024 * 1024,
    )  # fmt: skip
    bus = MemoryBus(max_payload=512 * 1024)
    with pytest.raises(Misconfigured, match=r"max_payload is 524288 bytes; .* need 1048576"):
        await Daemon(settings, bus, Children(), Log("runnerd")).run()


async def test_bootstrap_is_asked_until_it_is_answered_and_the_end_may_come_first(tmp_path: Path) -> None:
    settings = BootSettings(
        nats_urls=["memory"], org="acme", session="s1", boot_id="1-1", token="t", installation=OURS,
        workspace=str(tmp_path), spool_bytes=1024 * 1024,
    )  # fmt: skip
    daemon = Daemon(settings, MemoryBus(), Children(), Log("runnerd"))
    task = asyncio.ensure_future(daemon.run())
    await asyncio.sleep(0.1)
    daemon.end()
    async with asyncio.timeout(5):
        assert await task == ENDED


async def test_output_survives_an_outage(boot: Boot) -> None:
    await boot.desk.send(x.Start(exec="e", shell="for i in $(seq 400); do echo line $i; sleep 0.002; done"))
    await boot.desk.until(lambda: boot.desk.output("e"))
    boot.bus.go_away()
    await asyncio.sleep(0.2)
    boot.bus.come_back()
    await boot.desk.ended("e")
    assert boot.desk.output("e") == b"".join(b"line %d\n" % index for index in range(1, 401))


async def test_a_lost_bus_does_not_keep_runnerd_from_leaving(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_module, "STOP_WITHIN_S", 0.5)
    await boot.desk.send(x.Start(exec="e", argv=["sleep", "60"]))
    await boot.desk.until(lambda: "exec.started" in boot.desk.kinds("e"))
    boot.bus.go_away()
    boot.daemon.end()
    async with asyncio.timeout(6):
        assert await boot.task == ENDED
    # How it ended was not acknowledged: the spawner will say that it was lost.
    assert boot.desk.kinds("e")[-1] != "exec.exited"


async def test_a_connection_that_is_lost_right_after_the_bootstrap_ends_no_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, serve = iter(range(12)), MemoryBus.serve

    @asynccontextmanager
    async def lost(self: MemoryBus, subject: str, handler: Any, *, group: str = "") -> AsyncIterator[None]:
        if subject.startswith("req.runnerd") and next(failures, None) is not None:
            raise Unavailable("the connection to NATS is lost")
        async with serve(self, subject, handler, group=group):
            yield

    monkeypatch.setattr(MemoryBus, "serve", lost)
    async with booted(tmp_path / "workspace") as boot:
        await boot.desk.send(x.Start(exec="e", argv=["true"]))
        assert (await boot.desk.ended("e")).exit_code == 0
        async with asyncio.timeout(5):
            while True:
                try:
                    assert (await boot.desk.request("health", None, r.Health)).boot_id == "1-1"
                    return
                except NotFound:
                    await asyncio.sleep(0.02)


async def test_an_exec_of_another_boot_is_not_ours_to_end_and_the_rest_goes_on(boot: Boot) -> None:
    """Somebody closed it while the bus was away: its process ends, and nothing is recorded behind the end."""
    await boot.desk.send(x.Start(exec="a", shell="echo $$; exec sleep 60"))
    await boot.desk.send(x.Start(exec="b", argv=["cat"], stdin="hold"))
    pid = int(await boot.desk.until(lambda: boot.desk.output("a")))
    await boot.desk.until(lambda: boot.desk.events("b"))
    boot.bus.go_away()
    await boot.desk.close("a")
    os.kill(pid, signal.SIGUSR1)
    await asyncio.sleep(0.1)
    boot.bus.come_back()
    assert (await boot.desk.ask(x.WriteStdin(exec="b", text="on\n", eof=True))).bytes == 3
    assert (await boot.desk.ended("b")).exit_code == 0
    assert boot.desk.kinds("a")[-1] == "exec.lost"
    assert not boot.task.done()


async def test_a_drain_without_an_end_lapses(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "DRAIN_LAPSES_S", 0.3)
    await boot.desk.request("drain", r.Drain(commands_until=0), r.Drained)
    assert isinstance(await boot.desk.ask(w.PatchEnv(set={"A": "1"})), w.EnvPatched)


async def test_an_exec_is_orphaned_only_while_its_commands_are_read(
    boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_QUIET_S", 0.05)
    until = (await boot.desk.bus.state("CMD")).last_sequence + 1
    await boot.desk.request("drain", r.Drain(commands_until=until), r.Drained)
    await boot.desk.send(x.Start(exec="e", argv=["sleep", "60"], orphan_timeout_s=0.05))
    await boot.desk.until(lambda: "exec.started" in boot.desk.kinds("e"))
    beats = len(boot.desk.beats)
    await boot.desk.until(lambda: len(boot.desk.beats) > beats + 10)
    assert boot.desk.beats[-1].live_execs == 1
    await boot.desk.request("lift", r.Drain(commands_until=0), r.Done)
    assert (await boot.desk.ended("e")).reason == "orphaned"


async def test_a_hold_lapses(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_module, "HOLD_LAPSES_S", 0.2)
    await boot.desk.request("hold", r.Hold(hold=True), r.Done)
    await boot.desk.send(x.Start(exec="e", argv=["echo", "hi"]))
    assert (await boot.desk.ended("e")).bytes == {"stdout": 3, "stderr": 0}


async def test_a_download_is_an_event(boot: Boot) -> None:
    with web_site() as url:
        stored = await boot.desk.request("fetch_file", r.FetchFile(url=f"{url}/body", path="got"), r.FileStored)
        assert stored.size == len(BODY)
        with pytest.raises(Refused, match="FETCH_FAILED"):
            await boot.desk.request("fetch_file", r.FetchFile(url=f"{url}/nothing", path="got"), r.FileStored)
    await boot.desk.until(lambda: boot.desk.stored)
    assert boot.desk.stored[0][1].data == w.FileWritten(path="got", size=len(BODY), sha256=stored.sha256 or "")


async def test_downloads_that_hang_in_the_resolver_keep_their_turns_and_take_no_more_threads(
    boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_ABORT_GRACE_S", 0.05)
    resolve, answered = socket.getaddrinfo, threading.Event()

    def stuck(*args: Any, **more: Any) -> Any:
        answered.wait(30)
        return resolve(*args, **more)

    def fetch(url: str, timeout_s: float) -> Any:
        return boot.desk.request("fetch_file", r.FetchFile(url=url, path="got", timeout_s=timeout_s), r.FileStored)

    with web_site() as url:
        monkeypatch.setattr(socket, "getaddrinfo", stuck)
        try:
            for ended in await asyncio.gather(*(fetch(f"{url}/body", 0.05) for _ in range(2)), return_exceptions=True):
                assert isinstance(ended, Refused)
                assert ended.code == "FETCH_TIMEOUT"
            with pytest.raises(Refused, match="FETCH_LIMIT"):
                await fetch(f"{url}/body", 10)
        finally:
            answered.set()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert (await fetch(f"{url}/body", 10)).size == len(BODY)
                    return
                except Refused as refused:
                    if refused.code != "FETCH_LIMIT":
                        raise
                    await asyncio.sleep(0.01)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
COMMANDS = "start write_stdin signal cancel resize keepalive"
TYPES = st.sampled_from([*(f"exec.{verb}" for verb in COMMANDS.split()), "env.patch", "session.stop", "nothing.known"])
FIELDS = st.sampled_from(
    ["exec", "argv", "shell", "cwd", "env", "stdin", "tty", "signal", "cols", "rows", "text", "base64", "set", "unset"]
)
DATA = st.dictionaries(FIELDS | st.text(max_size=8), JSON, max_size=5).filter(
    lambda data: "exec" not in data or data["exec"] != "ok"
)


async def test_arbitrary_commands_get_one_refusal_each_and_end_nothing(tmp_path: Path) -> None:
    """Bad input: wrong types, unknown fields, oversized values, bytes that are no JSON."""
    bodies: list[bytes] = [b"", b"\xff\xfe", b"[" * 5000, b"null", b"x" * 950_000]

    @given(kind=TYPES, data=DATA | JSON, envelope=st.dictionaries(st.text(max_size=8), JSON, max_size=3))
    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def gather(kind: str, data: Any, envelope: dict[str, Any]) -> None:
        bodies.append(json.dumps({"type": kind, "data": data, "__fill__": True} | envelope).encode())

    gather()
    async with booted(tmp_path / "w") as boot:
        await boot.desk.send(x.Start(exec="ok", argv=["cat"], stdin="hold"))
        ids = []
        for body in bodies:
            id = new_id()
            ids.append(id)
            sent = body
            if b'"__fill__": true' in body:
                filled = json.loads(body)
                del filled["__fill__"]
                subject = boot.desk.subjects.command("runnerd", id)
                filled = {
                    "specversion": "1.0", "id": id, "source": "/t", "subject": subject, "time": "2026-01-01T00:00:00Z",
                } | filled  # fmt: skip
                sent = json.dumps(filled).encode()
            await boot.desk.send_raw(id, sent)
        for id in ids:
            outcome = (await boot.desk.outcome(id)).data
            assert isinstance(outcome, CommandRefused | w.EnvPatched), outcome
            assert len(boot.desk.outcomes(id)) == 1
        assert (await boot.desk.ask(x.WriteStdin(exec="ok", text="still here\n", eof=True))).bytes == 11
        assert (await boot.desk.ended("ok")).exit_code == 0
        assert boot.desk.output("ok") == b"still here\n"


@pytest.mark.parametrize(
    "verb", ["drain", "hold", "keys", "list_files", "read_file", "write_file", "delete_file", "fetch_file"]
)
async def test_arbitrary_requests_are_answered_with_what_is_wrong(boot: Boot, verb: str) -> None:
    for body in (b"", b"\xff", b"{}x", b"[]", b'{"path": 3, "exec": null}', b'{"unknown": 1}'):
        try:
            await boot.bus.request(boot.desk.subjects.request("runnerd", verb), body)
        except (Malformed, Refused):
            continue
        raise AssertionError(f"{verb} took {body!r}")
    assert not boot.task.done()
