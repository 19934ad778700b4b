"""The whole stack on this machine: everything dies once, and everything comes back with its data."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandreel_core.client import Client, ClientSettings
from sandreel_core.embedded import pidfile
from sandreel_core.embedded.account import SESSION_UIDS
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.embedded.part import Status
from sandreel_core.embedded.place import free_port, holder
from sandreel_core.embedded.postgres import PostgresServer
from sandreel_core.embedded.stack import Stack
from sandreel_core.errors import Misconfigured
from sandreel_core.jwt import parse_creds
from sandreel_core.settings import load

SANDREEL = (sys.executable, "-P", "-m", "sandreel_core.cli")
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("SANDREEL_")}
PARTS = {"nats", "postgres", "spawner", "projector", "broker", "bridge"}
pytestmark = pytest.mark.xdist_group("stack")


@pytest.fixture
def data() -> Iterator[Path]:
    # Not pytest's own directory: its parents are closed to the users that servers and sessions run as.
    directory = Path(tempfile.mkdtemp(prefix="sandreel-stack-"))
    directory.chmod(0o711)
    yield directory / "data"
    shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def client_of(stack: Stack) -> AsyncGenerator[Client, None]:
    settings = load(ClientSettings, environ={}, path=stack.client)
    async with Client.connect(settings, actor="test") as client:
        yield client


def uid_of(pid: int | None) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


async def run(*arguments: str | Path, timeout_s: float = 90) -> tuple[int, str]:
    """(exit code, what it printed) of the command line."""
    child = await asyncio.create_subprocess_exec(
        *(*SANDREEL, *map(str, arguments)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=ENVIRON,
    )
    async with asyncio.timeout(timeout_s):
        output, _ = await child.communicate()
    return child.returncode or 0, output.decode()


async def test_every_part_that_is_killed_comes_back(data: Path) -> None:
    heard: list[Status] = []

    def leave(status: Status) -> None:
        heard.append(status)
        raise BrokenPipeError("whoever looked has left")

    async with Stack(data, environ={"PATH": os.environ["PATH"]}, report=leave) as stack:
        assert set(stack.parts) == PARTS
        for victims in (
            {"nats"},
            {"postgres"},
            {"spawner"},
            {"projector"},
            {"nats", "spawner"},
            {"postgres", "projector"},
        ):
            starts = {name: stack.parts[name].starts for name in victims}
            await asyncio.gather(*(stack.parts[name].kill() for name in victims))
            for name, before in starts.items():
                await stack.parts[name].ready(after=before)
        async with client_of(stack) as client:
            assert await client.sessions("default") == []
        if os.geteuid() == 0:
            for name in ("nats", "postgres"):
                assert uid_of(stack.parts[name].pid) not in {0} | SESSION_UIDS
        pids = [part.pid for part in stack.parts.values()]
    assert all(pid is not None and pidfile.started(pid) is None for pid in pids)
    assert {status.part for status in heard if status.state == "stopped"} == PARTS
    for secret in (stack.place.keys_file, stack.place.client, stack.place.roles):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


async def test_data_ports_and_passwords_are_kept_and_sessions_are_stopped_in_order(data: Path) -> None:
    def leave(status: Status) -> None:
        raise BrokenPipeError("whoever looked has left")

    async with Stack(data, environ={"PATH": os.environ["PATH"]}, report=leave) as stack:
        keys = stack.place.keys()
        async with client_of(stack) as client:
            await client.create_session("default", "kept")
            epoch = (await client.bus.state("REEL-0")).epoch
    async with Stack(data, environ={"PATH": os.environ["PATH"]}) as stack:
        assert stack.place.keys() == keys
        async with client_of(stack) as client:
            assert (await client.bus.state("REEL-0")).epoch == epoch
            info = await client.session("default", "kept")
            assert info.phase == "stopped"
            assert (await client.resume("default", "kept")).ready


async def test_a_second_stack_on_the_same_data_is_refused_with_the_pid(data: Path) -> None:
    async with Stack(data, environ={"PATH": os.environ["PATH"]}):
        with pytest.raises(Misconfigured, match=str(os.getpid())):
            async with Stack(data):
                pass
        code, said = await run("up", "--backend", "process", "--data", data)
        assert code == 2
        assert f"already (pid {os.getpid()})" in said
        assert "Traceback" not in said


async def test_a_port_that_somebody_took_moves_unless_it_was_asked_for(data: Path) -> None:
    async with Stack(data, environ={"PATH": os.environ["PATH"]}) as stack:
        keys = stack.place.keys()
    with (
        socket.create_server(("127.0.0.1", keys.nats_port)),
        socket.create_server(("127.0.0.1", keys.postgres_port)),
    ):
        async with Stack(data, environ={"PATH": os.environ["PATH"]}) as stack:
            after = stack.place.keys()
            assert keys.nats_port != after.nats_port
            assert keys.postgres_port != after.postgres_port
            async with client_of(stack) as client:
                await client.bus.state("REEL-0")
        fixed = {"PATH": os.environ["PATH"], "SANDREEL_STACK_NATS_PORT": str(keys.nats_port)}
        with pytest.raises(Misconfigured, match=r"taken by another program: give \[stack\] nats_port another"):
            async with Stack(data, environ=fixed):
                pass
    fixed["SANDREEL_STACK_POSTGRES_PORT"] = str(free_port())
    async with Stack(data, environ=fixed) as stack, client_of(stack) as client:
        assert load(ClientSettings, environ={}, path=stack.client).bus.nats_urls == (
            f"nats://127.0.0.1:{keys.nats_port}",
        )
        await client.bus.state("REEL-0")
    assert holder(data) is None


async def test_servers_that_are_there_already_are_used(data: Path) -> None:
    data.parent.chmod(0o711)
    async with NatsServer(data.parent / "nats") as nats, PostgresServer(data.parent / "postgres") as postgres:
        environ = {
            "PATH": os.environ["PATH"],
            "SANDREEL_BUS_NATS_URLS": nats.url,
            "SANDREEL_BUS_USER": "role",
            "SANDREEL_BUS_PASSWORD": nats.password("role"),
            "SANDREEL_POSTGRES_DSN": postgres.dsn(),
            # What sessions connect with, as the guide says.
            "SANDREEL_SPAWNER_RUNNERD_NATS_USER": "runnerd",
            "SANDREEL_SPAWNER_RUNNERD_NATS_PASSWORD": nats.password("runnerd"),
        }
        async with Stack(data, environ=environ) as stack:
            assert set(stack.parts) == {"spawner", "projector", "broker", "bridge"}
            async with client_of(stack) as client:
                assert (await client.bus.state("REEL-0")).messages == 0
                assert (await client.create_session("default", "one", timeout_s=60)).ready
                assert (await client.run("default", "one", ["echo", "hello"])).stdout == b"hello\n"
        assert nats.pid is not None


async def test_an_operators_mistake_is_one_line(data: Path) -> None:
    with pytest.raises(Misconfigured, match="did you mean SANDREEL_SPAWNER_MAX_SESSIONS"):
        async with Stack(data, environ={"PATH": os.environ["PATH"], "SANDREEL_SPAWNER_MAX_SESSION": "3"}):
            pass
    assert holder(data) is None
    with pytest.raises(Misconfigured, match="did you mean SANDREEL_STACK_NATS_PORT"):
        async with Stack(data, environ={"SANDREEL_STACK_NATS_POTR": "3"}):
            pass
    code, said = await run("up", "--backend", "process", "--data", "/proc/sandreel")
    assert (code, said.count("\n")) == (2, 1 + said.startswith("sandreel 0"))
    assert "give another with --data" in said


async def test_up_that_is_killed_leaves_what_the_next_one_takes_over(data: Path) -> None:
    code, said = await run("up", "--backend", "process", "--data", data, "--detach", "--json")
    assert code == 0, said
    first = json.loads(said)["pid"]
    assert holder(data) == first
    role = pidfile.alive(data / "run" / "spawner.pid")
    assert role is not None
    os.kill(first, signal.SIGKILL)
    try:
        code, said = await run("session", "create", "--data", data, "kept")
        assert code == 0, said  # everything goes on without it
        code, said = await run("up", "--backend", "process", "--data", data, "--detach", "--json")
        assert code == 0, said
        assert pidfile.started(role) is None
        code, said = await run("session", "show", "--data", data, "kept", "--json")
        assert json.loads(said)["phase"] == "ready", said
    finally:
        code, said = await run("down", "--data", data)
    assert code == 0, said
    assert holder(data) is None
    code, said = await run("down", "--data", data)
    assert (code, "nothing is running" in said) == (0, True)


async def test_up_outlives_its_reader_and_a_hangup_that_it_was_started_to_ignore(data: Path) -> None:
    """`nohup sandreel up | head -20 &`, and then the terminal is closed."""
    reader, writer = os.pipe()
    up = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *SANDREEL, "up", "--backend", "process", "--data", data),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=writer,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRON,
    )
    os.close(writer)
    try:
        with open(reader, "rb") as output:  # noqa: PTH123 - a descriptor
            async with asyncio.timeout(60):
                while b"ready in" not in await asyncio.to_thread(output.readline):
                    pass
        pids = {name: pidfile.alive(data / "run" / f"{name}.pid") for name in ("spawner", "projector")}
        pids["nats"] = pidfile.alive(data / "nats" / "nats.pid")
        assert None not in pids.values()
        up.send_signal(signal.SIGHUP)
        os.kill(pids["spawner"] or 0, signal.SIGKILL)
        async with asyncio.timeout(60):
            while pidfile.alive(data / "run" / "spawner.pid") in (None, pids["spawner"]):
                await asyncio.sleep(0.05)
        pids["again"] = pidfile.alive(data / "run" / "spawner.pid")
    finally:
        if up.returncode is None:
            up.terminate()
        async with asyncio.timeout(60):
            _, said = await up.communicate()
    assert (up.returncode, said) == (0, b"")
    assert '"nats is up"' in (data / "logs" / "stack.log").read_text()
    assert all(pidfile.started(pid) is None for pid in pids.values() if pid is not None)
    assert holder(data) is None


async def test_logs_that_cannot_be_cut_end_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()

    def full(log: Path) -> None:
        seen.append(log.name)
        if seen.count("projector.log") == 2:
            loop.call_soon_threadsafe(enough.set)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sandreel_core.embedded.stack._LOGS_EVERY_S", 0)
    monkeypatch.setattr("sandreel_core.embedded.stack.cut", full)
    keeper = asyncio.create_task(Stack(data, environ={})._keep_logs_short())
    waiter = asyncio.create_task(enough.wait())
    await asyncio.wait((keeper, waiter), timeout=20, return_when=asyncio.FIRST_COMPLETED)
    assert (keeper.done(), waiter.done()) == (False, True)
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)


async def test_down_ends_what_a_killed_up_has_left(data: Path) -> None:
    code, said = await run("up", "--backend", "process", "--data", data, "--detach", "--json")
    assert code == 0, said
    os.kill(json.loads(said)["pid"], signal.SIGKILL)
    pids = [pidfile.alive(data / "run" / f"{name}.pid") for name in ("spawner", "projector")]
    pids.append(pidfile.alive(data / "nats" / "nats.pid"))
    assert None not in pids
    code, said = await run("down", "--data", data)
    assert code == 0, said
    assert "left over" in said
    assert all(pidfile.started(pid) is None for pid in pids if pid is not None)


async def test_doctor_says_what_is_missing_and_what_is_well(data: Path) -> None:
    code, said = await run("doctor", "--data", data)
    assert code == 0
    assert "start it: sandreel up" in said
    async with Stack(data, environ={"PATH": os.environ["PATH"]}) as stack:
        code, said = await run("doctor", "--data", data, "--json")
        checks = {check["name"]: check for check in map(json.loads, said.splitlines())}
        assert code == 0, said
        for name in ("stack", "spawner", "projector", "NATS", "stream REEL-0", "Postgres reachable", "views' schema"):
            assert checks[name]["level"] == "ok", checks[name]
        await stack.parts["nats"].hold()
        code, said = await run("doctor", "--data", data)
        assert code == 1
        assert "FAIL  NATS" in said
        assert "Traceback" not in said
        seed = parse_creds((stack.place.identity / "operator.creds").read_text())[1]
        assert seed not in said
        stack.parts["nats"].release()
        await stack.parts["nats"].ready(after=1)
