"""Client and command line against everything real: server, spawner, runnerd."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from sandreel_core import clock
from sandreel_core.client import Client, ClientSettings, ExecItem, Output
from sandreel_core.client.items import CaughtUp
from sandreel_core.contract import exec as x
from sandreel_core.contract.workspace import EnvPatched
from sandreel_core.errors import Refused
from sandreel_core.settings import load
from tests.support.program import ENVIRON, argv
from tests.support.terminal import Terminal

ORG = "default"
# Says what it was told, and never stops by itself.
TRAP = "trap 'echo caught; [ -n \"$stubborn\" ] || exit 9' INT; echo ready; while :; do sleep 0.02; done"


def sandreel(data: Path, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv(data, *args), input=stdin, capture_output=True, timeout=60, env=ENVIRON, check=False)


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    # Not pytest's own directory: its parents are closed to the users that the servers run as.
    data = Path(tempfile.mkdtemp(prefix="sandreel-system-"))
    try:
        up = sandreel(data, "up", "--detach", "--backend", "process")
        assert up.returncode == 0, up.stderr.decode()
        try:
            yield data
        finally:
            assert sandreel(data, "down").returncode == 0
    finally:
        shutil.rmtree(data)


@pytest.fixture
async def client(data: Path) -> AsyncIterator[Client]:
    settings = load(ClientSettings, environ={}, path=data / "client.toml")
    async with Client.connect(settings, actor="tests") as client:
        yield client


@pytest.fixture
async def session(client: Client) -> AsyncIterator[str]:
    info = await client.create_session(ORG, timeout_s=30)
    yield info.session
    await client.destroy(ORG, info.session)


async def seen(client: Client, session: str, exec_id: str, after: ExecItem | None = None) -> list[ExecItem]:
    cursor = after.cursor if after else None
    async with asyncio.timeout(30), aclosing(client.follow(ORG, session, exec_id, after=cursor)) as items:
        return [item async for item in items if not isinstance(item, CaughtUp)]


async def until_printed(client: Client, session: str, exec_id: str, text: bytes = b"ready") -> None:
    printed = b""
    async with asyncio.timeout(30), aclosing(client.follow(ORG, session, exec_id)) as items:
        async for item in items:
            printed += item.data if isinstance(item, Output) else b""
            if text in printed:
                return


def printed(items: list[ExecItem]) -> bytes:
    return b"".join(item.data for item in items if isinstance(item, Output))


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (["--", "sh", "-c", "exit 7"], 7),
        (["--shell", "kill -9 $$"], 137),
        (["--", "no-such-program"], 126),
        (["--timeout", "0.3", "--", "sleep", "30"], 143),
    ],
)
async def test_the_exit_code_is_the_jobs(data: Path, session: str, job: list[str], code: int) -> None:
    done = await asyncio.to_thread(sandreel, data, "exec", session, *job)

    assert done.returncode == code, done.stderr


async def test_bytes_go_in_and_come_out_unchanged(data: Path, session: str) -> None:
    given = os.urandom(200_000)

    done = await asyncio.to_thread(sandreel, data, "exec", session, "--", "cat", stdin=given)

    assert (done.returncode, done.stdout, done.stderr) == (0, given, b"")


async def test_attach_after_a_cursor_sees_exactly_the_rest(client: Client, session: str) -> None:
    handle = await client.exec(ORG, session, shell="seq 100000; seq 100 >&2")
    whole = await seen(client, session, handle.id)

    for place in (0, 1, len(whole) // 2, len(whole) - 1):
        assert await seen(client, session, handle.id, whole[place]) == whole[place + 1 :]
    result = await handle.collect(max_bytes=1000)
    assert result.lines == {"stdout": 100_000, "stderr": 100}
    assert result.truncated == {"stdout"}
    assert result.stdout == b"".join(b"%d\n" % line for line in range(1, 400))[:1000]
    assert result.stderr == b"".join(b"%d\n" % line for line in range(1, 101))


async def test_refusals_keep_their_codes(client: Client, session: str) -> None:
    await client.run(ORG, session, ["true"])
    handle = await client.exec(ORG, session, ["sleep", "30"], exec="x1")
    codes = []
    for attempt in (
        lambda: client.exec(ORG, session, ["true"], exec="x1"),
        lambda: client.exec(ORG, session, ["true"], cwd="nope"),
        lambda: client.exec(ORG, "nope", ["true"]),
        lambda: handle.write_stdin("x"),
        lambda: client.handle(ORG, session, "nope").cancel(),
        lambda: client.create_session(ORG, session),
    ):
        with pytest.raises(Refused) as refused:
            await attempt()
        codes.append(refused.value.code)
    await handle.cancel()

    assert codes == [
        *("DUPLICATE_EXEC", "INVALID_CWD", "SESSION_NOT_FOUND", "STDIN_CLOSED", "EXEC_NOT_FOUND", "SESSION_EXISTS"),
    ]
    assert (await handle.wait()).reason == "cancelled"


async def test_law_7_a_command_sent_by_two_clients_is_carried_out_once(
    data: Path, client: Client, session: str
) -> None:
    command_id = clock.new_id()
    settings = load(ClientSettings, environ={}, path=data / "client.toml")
    async with Client.connect(settings) as other:
        first, second = await asyncio.gather(
            *(
                one.exec(ORG, session, shell="echo x >> ran", exec="x1", command_id=command_id)
                for one in (client, other)
            )
        )
        third = await other.exec(ORG, session, shell="echo x >> ran", exec="x1", command_id=command_id)
    await first.wait()

    assert first.cursor == second.cursor == third.cursor
    assert (await client.run(ORG, session, ["cat", "ran"])).stdout == b"x\n"


async def test_typed_input_is_taken_once_however_often_it_is_sent(client: Client, session: str) -> None:
    handle = await client.exec(ORG, session, shell="stty -echo; echo ready; cat", tty=x.Terminal())
    await until_printed(client, session, handle.id)

    assert await handle.keys(b"hello\n", offset=0) == 6
    assert await handle.keys(b"hello\n", offset=0) == 6
    assert await handle.keys(b"\x04", offset=6) == 7

    result = await handle.collect()
    assert result.stdout.replace(b"\r", b"") == b"ready\nhello\n"


async def test_the_environment_of_later_execs(client: Client, session: str) -> None:
    outcome = await client.env(ORG, session).patch({"COLOR": "blue", "PATH": "/nowhere"})

    assert isinstance(outcome.data, EnvPatched)
    assert outcome.data.denied == ["PATH"]
    assert (await client.run(ORG, session, shell='printf "$COLOR"')).stdout == b"blue"


async def test_stop_ends_the_jobs_and_resume_keeps_the_workspace(client: Client, session: str) -> None:
    await client.run(ORG, session, shell="echo kept > file")
    handle = await client.exec(ORG, session, ["sleep", "30"])

    assert (await client.stop(ORG, session)).phase == "stopped"
    assert (await handle.wait()).reason == "stopped"
    with pytest.raises(Refused) as refused:
        await client.exec(ORG, session, ["true"])
    assert refused.value.code == "SESSION_NOT_READY"
    assert (await client.resume(ORG, session)).ready
    assert (await client.run(ORG, session, ["cat", "file"])).stdout == b"kept\n"


async def test_ctrl_c_once_interrupts_the_job(data: Path, session: str) -> None:
    async with Terminal(argv(data, "exec", session, "--", "sh", "-c", TRAP), ENVIRON) as terminal:
        await terminal.until("ready")
        await terminal.press_ctrl_c()
        assert await terminal.wait() == 9

    assert "caught" in terminal.text


async def test_ctrl_c_twice_detaches_and_the_way_back_shows_exactly_the_rest(
    data: Path, client: Client, session: str
) -> None:
    job = ("exec", session, "--id", "x1", "-e", "stubborn=1", "--", "sh", "-c", TRAP)
    async with Terminal(argv(data, *job), ENVIRON) as terminal:
        await terminal.until("ready")
        await terminal.press_ctrl_c()
        await terminal.until("caught")
        await terminal.press_ctrl_c()
        assert await terminal.wait() == 130
    found = re.search(r"sandreel attach \S+ x1 --after (\S+)", terminal.text)
    assert found is not None
    handle = client.handle(ORG, session, "x1")
    await handle.signal("SIGINT")
    # A shell that has both signals at once may end by the second before its trap for the first.
    await until_printed(client, session, "x1", b"caught\ncaught\n")
    await handle.cancel()

    rest = await asyncio.to_thread(sandreel, data, "attach", session, "x1", "--after", found[1])

    assert rest.returncode == 143
    assert rest.stdout == b"caught\n"
    assert printed(await seen(client, session, "x1")) == b"ready\ncaught\ncaught\n"
