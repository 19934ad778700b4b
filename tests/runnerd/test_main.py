"""runnerd as a process, against a real server: what is recorded survives the server's death and runnerd's end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from sandreel_core.contract import exec as x
from sandreel_core.contract import workspace as w
from sandreel_core.contract.boot import BOOT_MARKER, UNWRITABLE, BootSettings
from sandreel_core.contract.runnerd import Health
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.embedded.nats import NatsServer
from tests.support.desk import Desk
from tests.support.mark import OURS
from tests.support.namespaces import as_pid_1, needs_pid_namespace, pid_1_of
from tests.support.nats import Connect

MARKER = f"{OURS}/acme/s1/1-1"


class Runnerd:
    """The process, its desk and its workspace."""

    def __init__(self, process: asyncio.subprocess.Process, desk: Desk, workspace: Path, log: Path) -> None:
        self.process = process
        self.desk = desk
        self.workspace = workspace
        self.log = log

    async def left(self, within_s: float = 25) -> int:
        async with asyncio.timeout(within_s):
            return await self.process.wait()


@asynccontextmanager
async def started(
    server: NatsServer, connect: Connect, tmp_path: Path, *words: str, token: str = "hush-token"
) -> AsyncIterator[Runnerd]:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    settings = BootSettings(
        nats_urls=[server.url],
        org="acme",
        session="s1",
        boot_id="1-1",
        token=token,
        installation=OURS,
        nats_user="runnerd",
        nats_password=server.password("runnerd"),
        workspace=str(workspace),
        spool_bytes=8 * 1024 * 1024,
        heartbeat_s=0.2,
    )
    log = tmp_path / "log"
    desk = Desk(await connect("role"), SessionSubjects("acme", "s1"))
    async with desk.open():
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *words,
                *(sys.executable, "-m", "sandreel_runnerd", "--settings-stdin"),
                stdin=subprocess.PIPE,
                stderr=stderr,
                env=os.environ | {BOOT_MARKER: MARKER},
            )
        try:
            await _feed(process, msgspec.json.encode(settings))
            await desk.until(lambda: desk.beats)
            yield Runnerd(process, desk, workspace, log)
        except BaseException:
            sys.stderr.write(log.read_text())
            raise
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await asyncio.to_thread(sweep, MARKER)


async def _feed(process: asyncio.subprocess.Process, body: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(body)
    await process.stdin.drain()
    process.stdin.close()
    await process.stdin.wait_closed()


def sweep(marker: str) -> None:
    """End what a killed runnerd left, as the spawner does."""
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{BOOT_MARKER}={marker}\0".encode() in environ.read_bytes():
                os.kill(int(environ.parent.name), signal.SIGKILL)
        except OSError:
            continue


@pytest.fixture
async def runnerd(nats_server: NatsServer, connect_bus: Connect, tmp_path: Path) -> AsyncIterator[Runnerd]:
    async with started(nats_server, connect_bus, tmp_path) as running:
        yield running


async def test_a_workspace_where_nothing_can_be_written_is_an_exit_code_of_its_own(nats_server: NatsServer) -> None:
    settings = BootSettings(
        nats_urls=[nats_server.url], org="acme", session="s1", boot_id="1-1", token="hush", installation=OURS,
        nats_user="runnerd", nats_password=nats_server.password("runnerd"), workspace="/sys",
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sandreel_runnerd", "--settings-stdin"),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(25):
        _, said = await process.communicate(msgspec.json.encode(settings))
    assert process.returncode == UNWRITABLE
    assert [line for line in said.decode().splitlines() if line.startswith("runnerd: ")] == [
        f"runnerd: no {settings.spool_bytes} bytes for the spool in /sys: Permission denied"
    ]


COUNT = "import sys, time\nfor i in range(%d):\n    print('line', i, flush=i %% 50 == 0)\n    if i %% 50 == 0: time.sleep(0.01)\n"


def counted(lines: int) -> bytes:
    return b"".join(b"line %d\n" % index for index in range(lines))


async def test_an_exec_from_start_to_exit(runnerd: Runnerd) -> None:
    desk = runnerd.desk
    assert (await desk.outcome(await desk.send(x.Start(exec="e", argv=["sh", "-c", "env; exit 3"])))).n == 1
    assert (await desk.ended("e")).exit_code == 3
    assert desk.kinds("e")[:3] == ["exec.accepted", "exec.started", "exec.output"]
    seen = desk.output("e").decode()
    assert f"{BOOT_MARKER}={MARKER}" in seen
    assert "hush" not in seen
    assert isinstance(await desk.ask(w.PatchEnv(set={"A": "1"})), w.EnvPatched)
    assert isinstance(await desk.ask(w.PatchEnv(set={"A": "2"})), w.EnvPatched)
    health = await desk.request("health", None, Health)
    assert not health.pid1
    assert health.rss_bytes <= 60 * 1024 * 1024
    runnerd.process.send_signal(signal.SIGTERM)
    assert await runnerd.left() == 0
    log = runnerd.log.read_text()
    assert "hush" not in log
    assert "Traceback" not in log


async def test_sigterm_in_mid_output_ends_execs_and_acknowledges_them_first(runnerd: Runnerd) -> None:
    desk = runnerd.desk
    await desk.send(x.Start(exec="loud", argv=[sys.executable, "-c", COUNT % 1_000_000]))
    await desk.send(x.Start(exec="stubborn", shell="trap '' TERM; echo up; while :; do sleep 0.05; done"))
    await desk.until(lambda: desk.output("loud") and desk.output("stubborn"))
    runnerd.process.send_signal(signal.SIGTERM)
    assert await runnerd.left() == 0
    loud, stubborn = await desk.ended("loud"), await desk.ended("stubborn")
    assert (loud.reason, loud.signal) == ("stopped", "SIGTERM")
    assert (stubborn.reason, stubborn.signal) == ("stopped", "SIGKILL")
    assert len(desk.output("loud")) == loud.bytes["stdout"]
    assert desk.output("loud") == counted(1_000_000)[: loud.bytes["stdout"]]


async def test_the_server_is_killed_in_mid_output_and_not_a_byte_is_lost(
    runnerd: Runnerd, nats_server: NatsServer
) -> None:
    desk = runnerd.desk
    await desk.send(x.Start(exec="e", argv=[sys.executable, "-c", COUNT % 20_000]))
    await desk.until(lambda: len(desk.output("e")) > 10_000)
    nats_server.kill()
    await nats_server.wait()
    await asyncio.sleep(0.5)
    await nats_server.start()
    exited = await desk.ended("e", within_s=60)
    assert exited.exit_code == 0
    assert desk.output("e") == counted(20_000)
    assert [event.n for event in desk.events("e")] == list(range(1, len(desk.events("e")) + 1))
    # The consumer in memory is gone with the server; commands are read on from where they were.
    refused = await desk.ask(x.Start(exec="e", argv=["true"]))
    assert refused.code == "DUPLICATE_EXEC"
    assert desk.logs >= 1
    assert len(desk.feeds) >= 2


@needs_pid_namespace
async def test_as_pid_1_no_exec_can_end_its_recorder(
    nats_server: NatsServer, connect_bus: Connect, tmp_path: Path
) -> None:
    attack = "kill -TERM 1; kill -INT 1; kill -HUP 1; kill -KILL 1; kill -STOP 1; kill -KILL -1; echo tried; exit 9"
    async with started(nats_server, connect_bus, tmp_path, *(as_pid_1() or ())) as runnerd:
        desk = runnerd.desk
        await desk.send(x.Start(exec="attack", shell=attack))
        assert (await desk.ended("attack")).exit_code == 9
        assert desk.output("attack") == b"tried\n"
        await desk.send(x.Start(exec="orphans", shell="for i in $(seq 300); do (setsid true &) ; done; exit 4"))
        assert (await desk.ended("orphans")).exit_code == 4
        # A signal mask that was inherited from PID 1 would make this one live for ever.
        await desk.send(x.Start(exec="mask", shell="kill -TERM $$; sleep 60"))
        assert (await desk.ended("mask")).signal == "SIGTERM"
        assert (await desk.request("health", None, Health)).pid1
        await desk.send(x.Start(exec="last", argv=["sleep", "60"]))
        await desk.until(lambda: "exec.started" in desk.kinds("last"))
        os.kill(await asyncio.to_thread(pid_1_of, runnerd.process.pid), signal.SIGTERM)
        assert await runnerd.left() == 0
        assert (await desk.ended("last")).reason == "stopped"


async def test_idle_it_costs_nearly_nothing(runnerd: Runnerd) -> None:
    await runnerd.desk.ask(w.PatchEnv())

    def cpu_s() -> float:
        fields = Path(f"/proc/{runnerd.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, begun = cpu_s(), time.monotonic()
    beats = len(runnerd.desk.beats)
    await runnerd.desk.until(lambda: len(runnerd.desk.beats) >= beats + 15)
    share = (cpu_s() - before) / (time.monotonic() - begun)
    # Heartbeats come 25 times as often here as they do; the bound of an idle runnerd is half a percent.
    assert share < 0.1, f"{share:.1%} of a core"


def test_what_is_wrong_with_the_settings_is_one_line() -> None:
    for body, words, code in (
        (b"{}", ["--settings-stdin"], 78),
        (b"", ["--nonsense"], 78),
        (b"", [], 78),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "sandreel_runnerd", *words], input=body, capture_output=True, timeout=30, check=False
        )
        assert done.returncode == code
        assert done.stderr.decode().count("\n") == 1
        assert done.stderr.startswith(b"runnerd: ")
