"""Leases inside a session: what is kept and forgotten, who asks, and the programs that do."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.clock import now
from sandreel_core.contract.boot import BOOT_MARKER, EXEC_MARKER
from sandreel_core.contract.lease import AskLease, Lease
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Malformed, NotFound, Refused, Unavailable
from sandreel_core.keys import SealingKey, seal
from sandreel_core.log import Log
from sandreel_runnerd.lease_socket import MAX_CONNECTIONS, lend
from sandreel_runnerd.leases import KEPT_S, Leases
from sandreel_runnerd.mask import Mask
from sandreel_runnerd.programs import ROOT, Programs

SUBJECTS = SessionSubjects("acme", "one")
MARKER = "ours/acme/one/1-1"
VALUE = "s3cr3t-value"
ASK = AskLease(boot_id="1-1", exec="e1", slug="github")
pytestmark = pytest.mark.timeout(60)


class Broker:
    """Answers as one would, and counts. `fields` are of every lease, `error` is raised instead."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.sealing = SealingKey()
        self.mask = Mask()
        self.asked: list[AskLease] = []
        self.value = VALUE.encode()
        self.fields: dict[str, Any] = {}
        self.error: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def answer(self, subject: str, body: bytes) -> bytes:
        ask = msgspec.json.decode(body, type=AskLease)
        self.asked.append(ask)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        given: dict[str, Any] = {
            "username": "x-access-token",
            "variables": ["A_TOKEN", "B_TOKEN"],
            "expires_at": now() + timedelta(seconds=300),
            "sealed": seal(self.sealing.public, self.value),
        }
        return msgspec.json.encode(
            Lease(
                lease_id=f"l-{len(self.asked)}",
                slug=ask.slug or "github",
                **(given | self.fields),
            )
        )

    def leases(self, clock_s: Any = None) -> Leases:
        more = {} if clock_s is None else {"clock_s": clock_s}
        return Leases(self.bus, SUBJECTS, self.sealing, self.mask, Log("test"), now=now, **more)


@pytest.fixture
async def broker() -> AsyncGenerator[Broker, None]:
    broker = Broker()
    async with broker.bus.serve("req.broker.*.*.lease", broker.answer):
        yield broker
    await broker.bus.close()


async def test_one_operation_is_one_lease_for_some_seconds(broker: Broker) -> None:
    at = 0.0
    leases = broker.leases(lambda: at)
    first = await leases.lease(ASK, 7)
    assert (first.value, VALUE not in repr(first)) == (VALUE.encode(), True)
    assert await leases.lease(msgspec.structs.replace(ASK, pid=99), 7) is first
    for other, group in (
        (ASK, 8),
        (msgspec.structs.replace(ASK, exec="e2"), 7),
        (msgspec.structs.replace(ASK, slug="npm"), 7),
    ):
        assert await leases.lease(other, group) is not first
    at = KEPT_S + 0.1
    assert await leases.lease(ASK, 7) is not first


async def test_what_is_revoked_is_forgotten_also_on_its_way(broker: Broker) -> None:
    leases = broker.leases()
    first = await leases.lease(ASK, 7)
    other = await leases.lease(msgspec.structs.replace(ASK, slug="npm"), 7)
    leases.forget("github")
    assert await leases.lease(msgspec.structs.replace(ASK, slug="npm"), 7) is other
    broker.go.clear()
    asking = asyncio.ensure_future(leases.lease(ASK, 7))
    while len(broker.asked) < 3:
        await asyncio.sleep(0)
    leases.forget("github")
    broker.go.set()
    under_way = await asking
    assert under_way is not first
    assert await leases.lease(ASK, 7) is not under_way


async def test_a_lease_that_ends_soon_is_not_kept_longer_and_no_more_than_a_bound_are(broker: Broker) -> None:
    at = 0.0
    leases = broker.leases(lambda: at)
    broker.fields = {"expires_at": now() + timedelta(seconds=2)}
    first = await leases.lease(ASK, 7)
    at = 2.5
    assert await leases.lease(ASK, 7) is not first
    for group in range(200):
        await leases.lease(ASK, group)
    before = len(broker.asked)
    at = 3.0
    for group in range(200):
        await leases.lease(ASK, group)
    assert len(broker.asked) > before


async def test_an_answer_that_was_sealed_for_another_is_none(broker: Broker) -> None:
    broker.fields = {"sealed": seal(SealingKey().public, b"other")}
    with pytest.raises(Malformed):
        await broker.leases().lease(ASK, 7)


@asynccontextmanager
async def lending(broker: Broker) -> AsyncGenerator[Programs, None]:
    async with lend(broker.leases(), "1-1", MARKER, Log("test")) as programs:
        assert programs is not None
        yield programs


async def run(
    programs: Programs,
    *words: str,
    stdin: str = "",
    marker: str = MARKER,
    exec: str | None = "e1",
    path: str = "",
    **more: str,
) -> tuple[int, str, str]:
    """What a program of an exec prints."""
    base = {"PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"], BOOT_MARKER: marker, **more}
    env = programs.environment(base | ({} if exec is None else {EXEC_MARKER: exec}))
    process = await asyncio.create_subprocess_exec(
        *words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate(stdin.encode())
    return process.returncode or 0, out.decode(), err.decode()


async def test_a_program_gets_a_value_and_the_broker_hears_who_asks(broker: Broker) -> None:
    async with lending(broker) as programs:
        assert await run(programs, "sandreel-credential", "get", "github") == (0, f"{VALUE}\n", "")
        assert await run(programs, "sh", "-c", "sandreel-credential get npm acme/tool; true") == (0, f"{VALUE}\n", "")
    first, second = broker.asked
    # Nothing of its exec stands above it.
    assert first.program == "sandreel-credential"
    assert (first.slug, first.exec, first.boot_id, first.resource) == ("github", "e1", "1-1", None)
    assert (second.slug, second.resource, second.program) == ("npm", "acme/tool", "sh")
    assert second.pid is not None


async def test_login_shells_find_the_programs_too(broker: Broker, tmp_path: Path) -> None:
    """Where no image says so in /etc/profile.d: /etc/profile begins with a PATH of its own, whoever started the shell."""
    (tmp_path / ".bash_profile").write_text("PATH=/usr/local/bin:/usr/bin:/bin; export MINE=1\n")
    (tmp_path / "own").write_text("export OWN=1\n")
    home, get = str(tmp_path), "sandreel-credential get github"
    async with lending(broker) as lent:
        socket = Path(lent.environment({})["SANDREEL_LEASES"])
        programs = Programs(socket, os.environ, profile=tmp_path / "none")
        for words in (
            ("bash", "-lc", f"{get}; echo $MINE"),
            ("bash", "-lc", f"sh -c '{get}'; timeout 20 bash -c 'echo $MINE'"),
            ("sh", "-c", f"bash -lc '{get}; echo $MINE'"),
            ("bash", "-lc", f"bash -lc '{get}'; echo $MINE"),
            ("bash", "-c", f"MINE=1; {get}; echo $MINE"),
        ):
            assert await run(programs, *words, HOME=home) == (0, f"{VALUE}\n1\n", ""), words
        # Once, however deep.
        _, out, _ = await run(programs, "bash", "-c", "bash -lc 'bash -c \"echo $PATH\"'", HOME=home)
        assert out.count(str(ROOT / "bin")) == 1
        # What an exec says to bash itself stays.
        assert (await run(programs, "bash", "-c", "echo $OWN", HOME=home, BASH_ENV=f"{home}/own"))[1] == "1\n"
        (tmp_path / "sandreel.sh").touch()
        assert "BASH_ENV" not in Programs(socket, {}, profile=tmp_path / "sandreel.sh").environment({})


async def test_only_execs_of_this_boot_are_answered(broker: Broker) -> None:
    async with lending(broker) as programs:
        for wrong in ({"marker": "ours/acme/one/1-2"}, {"exec": None}, {"exec": "not a name"}):
            code, out, err = await run(programs, "sandreel-credential", "get", "github", **wrong)
            assert (code, out, "NO_EXEC" in err) == (1, "", True)
        place = Path(programs.environment({})["SANDREEL_LEASES"]).parent
        assert place.stat().st_mode & 0o777 == 0o700
    assert broker.asked == []
    assert not place.exists()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (Refused("NOT_GRANTED", "no grant of github stands"), "no grant of github stands (NOT_GRANTED)"),
        (Unavailable("the vault does not answer"), "the vault does not answer"),
        (NotFound("nothing"), "nothing is granted"),
    ],
)
async def test_no_lease_is_said_in_one_line(broker: Broker, error: Exception, says: str) -> None:
    broker.error = error
    async with lending(broker) as programs:
        code, out, err = await run(programs, "sandreel-credential", "get", "github")
        assert (code, out) == (1, "")
        assert says in err
        assert err.count("\n") == 1


async def test_without_a_broker_that_is_said(broker: Broker) -> None:
    bus = MemoryBus()
    leases = Leases(bus, SUBJECTS, broker.sealing, broker.mask, Log("test"), now=now)
    async with lend(leases, "1-1", MARKER, Log("test")) as programs:
        assert programs is not None
        code, _, err = await run(programs, "sandreel-credential", "get", "github")
    assert (code, "there is no broker" in err) == (1, True)
    await bus.close()


async def test_git_s_helper_speaks_git_s_protocol(broker: Broker) -> None:
    asked = "protocol=https\nhost=github.com\npath=acme/tool.git\nwwwauth[]=Basic\n\n"
    async with lending(broker) as programs:
        assert await run(programs, "git", "credential", "fill", stdin=asked) == (
            0,
            f"protocol=https\nhost=github.com\npath=acme/tool.git\nusername=x-access-token\npassword={VALUE}\n",
            "",
        )
        (ask,) = broker.asked
        assert ask.git is not None
        assert (ask.git.protocol, ask.git.host, ask.git.path) == ("https", "github.com", "acme/tool.git")
        assert "git" in (ask.program or "")
        helper = ("git-credential-sandreel",)
        for words, stdin in (((*helper, "store"), asked), ((*helper, "erase"), asked), ((*helper, "get"), "protocol=ssh\nhost=x\n\n")):  # fmt: skip
            assert await run(programs, *words, stdin=stdin) == (0, "", "")
        broker.error = NotFound("nothing")
        assert await run(programs, *helper, "get", stdin=asked.replace("acme", "x")) == (0, "", "")
        broker.error, broker.value = None, b"two\nlines"
        assert await run(programs, *helper, "get", stdin=asked.replace("acme", "y")) == (0, "", "")


async def test_what_an_exec_says_to_git_itself_stays(broker: Broker) -> None:
    async with lending(broker) as programs:
        mine = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "me"}
        assert (await run(programs, "git", "config", "user.name", **mine))[1] == "me\n"
        assert "sandreel" in (await run(programs, "git", "config", "credential.helper", **mine))[1]


async def test_a_command_runs_with_the_value_in_its_variables(broker: Broker) -> None:
    async with lending(broker) as programs:
        printing = ("sandreel-credential", "run", "github", "--", "sh", "-c", "echo $A_TOKEN $B_TOKEN; exit 3")
        assert await run(programs, *printing) == (3, f"{VALUE} {VALUE}\n", "")
        code, _, err = await run(programs, "sandreel-credential", "run", "github", "--", "no-such-program")
        assert (code, "no-such-program" in err) == (127, True)
        assert (await run(programs, "sandreel-credential", "run", "github"))[0] == 64
        broker.value = b"nul\0"
        code, _, err = await run(programs, "sandreel-credential", "run", "npm", "--", "true")
        assert (code, "no variable can hold" in err) == (1, True)


async def test_a_file_is_there_for_one_command_in_memory_and_then_gone(broker: Broker) -> None:
    broker.fields = {"variables": [], "file_variable": "KUBECONFIG", "file_name": "config"}
    async with lending(broker) as programs:
        text = 'cat "$KUBECONFIG"; echo; echo "$KUBECONFIG"; stat -c %a "$KUBECONFIG"; kill -TERM $$'
        code, out, _ = await run(programs, "sandreel-credential", "run", "cluster", "--", "sh", "-c", text)
    value, path, mode = out.splitlines()
    assert (code, value, mode) == (128 + 15, VALUE, "600")
    assert path.startswith("/dev/shm/sandreel-")
    assert not Path(path).parent.exists()


async def test_gh_gets_a_token_for_its_host_and_goes_on_without_one(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "gh").write_text('#!/bin/sh\necho "$A_TOKEN" "$@"\n')
    (tmp_path / "gh").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    async with lend(broker.leases(), "1-1", MARKER, Log("test")) as plain:
        assert plain is not None
        programs = Programs(Path(plain.environment({})["SANDREEL_LEASES"]), {"PATH": path})
        assert await run(programs, "gh", "pr", "list", path=str(tmp_path)) == (0, f"{VALUE} pr list\n", "")
        assert broker.asked[0].git is not None
        assert broker.asked[0].git.host == "github.com"
        assert await run(programs, "gh", "api", path=str(tmp_path), GH_TOKEN="own") == (0, " api\n", "")
        broker.error = Unavailable("away")
        code, out, err = await run(programs, "gh", "x", path=str(tmp_path), GH_HOST="ghe")
        assert (code, out, "goes on without a token" in err) == (0, " x\n", True)
    assert broker.asked[-1].git is not None
    assert broker.asked[-1].git.host == "ghe"
    # Where the session has no gh of its own, nothing pretends to be one.
    assert str(ROOT / "gh") not in Programs(Path("/x"), {"PATH": "/nowhere"}).environment({})["PATH"]


async def test_questions_have_bounds(broker: Broker) -> None:
    async with lending(broker) as programs:
        path = programs.environment({})["SANDREEL_LEASES"]
        for line in (b"\n", b"x" * 20_000 + b"\n", b'{"get": "a", "git": null, "more": 1}\n', b"{}\n"):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(line)
            assert json.loads(await reader.read())["error"] == "BAD_REQUEST"
            writer.close()
        idle = [await asyncio.open_unix_connection(path) for _ in range(MAX_CONNECTIONS)]
        reader, writer = await asyncio.open_unix_connection(path)
        assert json.loads(await reader.read())["error"] == "TOO_MANY"
        for _, each in (*idle, (reader, writer)):
            each.close()


def test_the_program_starts_without_what_a_session_may_lack() -> None:
    """No site packages, and nothing of the environment or the directory that could stand in for the standard library."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", str(ROOT / "ask.py"), "get", "x"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "no process of a sandreel session" in done.stderr
    assert not {"asyncio", "msgspec", "sandreel_core"} & {
        line.rpartition("|")[2].strip() for line in done.stderr.splitlines()
    }
