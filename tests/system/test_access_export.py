"""A NATS of the operator's own, made from what `sandreel access export` has written: the whole system works in front of it."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandreel_core.client import Client
from sandreel_core.embedded.nats import find_program, greets
from sandreel_core.embedded.place import free_port
from sandreel_core.embedded.stack import Stack
from sandreel_core.errors import Denied
from sandreel_core.jwt import parse_creds
from tests.support.system import ORG, client_of, until

pytestmark = pytest.mark.xdist_group("stack")


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sandreel-export-") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


async def sandreel(place: Path, *words: str | Path) -> tuple[int, str, str]:
    """(exit code, standard output, standard error), with the keys in `place/keys`."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SANDREEL_")}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "sandreel_core.cli", *map(str, words), "--data", str(place / "keys")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ,
        cwd=place,
    )
    async with asyncio.timeout(60):
        out, err = await child.communicate()
    return child.returncode or 0, out.decode(), err.decode()


@asynccontextmanager
async def own_server(place: Path, accounts: Path, port: int) -> AsyncIterator[None]:
    """As an operator starts it: a configuration of his own that includes what was exported. Streams reserve what they may take, which may
    be more than this machine has."""
    config = place / "server.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{place}/store", max_file_store: 100GB }}\ninclude "{os.path.relpath(accounts, place)}"\n'
    )
    with (place / "server.log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            *(str(find_program()), "-c", str(config)), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        await until(lambda: greets(port), "the server answers")
        yield
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


async def test_the_system_works_in_front_of_a_nats_of_ones_own(place: Path) -> None:
    port = free_port()
    url, out = f"nats://127.0.0.1:{port}", place / "out"
    export = ("access", "export", out, "--url", url, "--accounts", place / "accounts")
    code, said, problem = await sandreel(place, *export, "--json")
    assert code == 0, problem
    files = [Path(json.loads(line)["file"]) for line in said.splitlines()]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert {stat.S_IMODE(file.parent.stat().st_mode) for file in files} == {0o700}
    # What only one of them is to have, no other has.
    holders = {file.parent.name for file in files if file.name == "sessions.seed"}
    assert holders == {"up", "spawner"}
    seeds = json.loads((place / "keys" / "identity" / "authority.json").read_text())
    for seed in (
        seeds["operator"],
        *(each for part in ("accounts", "signing", "users") for each in seeds[part].values()),
    ):
        assert seed not in (out / "nats" / "accounts.conf").read_text(), "the server's file is no secret"
    environ = {"PATH": os.environ["PATH"], "SANDREEL_CONFIG": str(out / "up" / "sandreel.toml")}
    async with own_server(place, out / "nats" / "accounts.conf", port):
        async with Stack(place / "data", environ=environ) as stack, client_of(stack) as client:
            assert set(stack.parts) == {"postgres", "spawner", "projector", "broker", "bridge"}
            assert (await client.create_session(ORG, "one", timeout_s=60)).ready
            assert (await client.run(ORG, "one", ["echo", "hello"])).stdout == b"hello\n"
            # A service gets credentials, is confined, and is cut off.
            make = ("access", "create", "ci", "--org", ORG, "--can", "command,follow", "--out")
            code, said, problem = await sandreel(place, *make, "-")
            assert code == 0, problem
            parse_creds(said)
            async with Client.connect(url, creds=said, actor="ci") as service:
                assert (await service.run(ORG, "one", ["echo", "again"])).stdout == b"again\n"
                with pytest.raises(Denied):
                    await service.session("other", "one")
                code, _, problem = await sandreel(place, "access", "rm", "ci", "--url", url)
                assert code == 0, problem
                await until(lambda: not service.bus.connected, "cut off")
    # The same again changes no key, and a server that starts with an older file remembers what was taken back.
    older = (out / "operator" / "bus.creds").read_text()
    async with own_server(place, out / "nats" / "accounts.conf", port):
        with pytest.raises(Denied):
            async with Client.connect(url, creds=said, actor="ci"):
                raise AssertionError("it was taken back")
    assert (await sandreel(place, *export))[0] == 0
    assert parse_creds((out / "operator" / "bus.creds").read_text())[1] == parse_creds(older)[1]


async def test_an_operators_mistake_is_one_line_that_names_it(place: Path) -> None:
    (place / "file").touch()
    for words, why in (
        (("access", "export", "out", "--url", "http://here"), "is no URL of a NATS server"),
        (("access", "export", "out", "--url", "nats://user:secret@here"), "is no URL of a NATS server"),
        (("access", "export", place / "file", "--url", "nats://here:4222"), "cannot be made (not a directory)"),
        (("access", "create", "ci", "--org", ORG, "--can", "follow", "--out", "-", "--json"), "leave out --json"),
    ):
        code, said, problem = await sandreel(place, *words)
        assert (code, said, problem.count("\n"), why in problem) == (2, "", 1, True), problem
