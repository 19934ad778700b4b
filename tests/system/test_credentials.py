"""Credentials in a whole stack: put, granted, leased by git and by programs, revoked; and their bytes nowhere else."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from sandreel_core.client import Result
from sandreel_core.contract import credential as c
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.message import Envelope
from tests.support.git_server import GitServer, git_server
from tests.support.system import ORG, Site, open_site

# Shared by the module: each test has a session of its own.
pytestmark = pytest.mark.asyncio(loop_scope="module")
VALUE = "ghp_" + os.urandom(15).hex()
OTHER = "tok-" + os.urandom(15).hex()
KUBECONFIG = f"apiVersion: v1\ntoken: {OTHER}\n"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site() -> AsyncIterator[Site]:
    async with open_site() as site:
        yield site


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    with git_server(tmp_path_factory.mktemp("git"), VALUE) as server:
        server.make("acme/tool")
        yield server


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stored(site: Site, server: GitServer) -> None:
    options = (f"--set=host={server.host}", "--set=scheme=http")
    said = await sandreel(site, "put", "github", *options, value=f"{VALUE}\n")
    assert VALUE not in said
    await sandreel(site, "put", "cluster", "--recipe", "kubeconfig", value=KUBECONFIG)


async def sandreel(site: Site, *words: str, value: str = "", code: int = 0) -> str:
    """What `sandreel credential …` printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sandreel_core.cli", "credential", *words, "--data", str(site.data)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={name: text for name, text in os.environ.items() if not name.startswith("SANDREEL_")},
    )
    said, _ = await process.communicate(value.encode())
    assert process.returncode == code, said.decode()
    assert "Traceback" not in said.decode()
    return said.decode()


async def shell(site: Site, session: str, text: str, **fields: object) -> Result:
    """Run it as a program's own shell would, with the PATH that the exec has."""
    return await site.client.run(ORG, session, ["sh", "-c", text], timeout_s=60, **fields)  # type: ignore[arg-type]


async def events(site: Site, session: str) -> list[Envelope]:
    """The session's events about credentials."""
    subject = site.client.subjects(ORG, session).event("credential")
    return [decode_event(each.subject, each.body) for each in await site.log() if each.subject == subject]


async def leases(site: Site, session: str) -> list[c.Leased]:
    return [event.data for event in await events(site, session) if isinstance(event.data, c.Leased)]


async def test_git_clones_and_pushes_by_a_grant_and_not_without(site: Site, server: GitServer, stored: None) -> None:
    session = await site.session()
    clone = f"GIT_TERMINAL_PROMPT=0 git clone -q {server.url('acme/tool')} tool"
    without = await shell(site, session, clone)
    assert without.exit_code != 0
    assert await leases(site, session) == []
    await site.client.send(ORG, session, c.Grant(slug="github", purpose="a fix"))
    push = "cd tool && echo more > more && git add more && git -c user.name=a -c user.email=a@b commit -qm more"
    done = await shell(site, session, f"{clone} && {push} && git push -q origin HEAD:main && cat README")
    assert (done.exit_code, done.stdout) == (0, b"acme/tool"), done.stderr
    assert server.subjects("acme/tool") == ["more", "first"]
    assert set(server.users) == {"x-access-token"}
    (lease, *_) = await leases(site, session)
    assert (lease.slug, lease.exec, lease.injected) == ("github", done.exec_id, False)
    assert lease.program is not None
    assert "git" in lease.program
    assert lease.pid is not None
    assert lease.purpose.startswith(f"git http://{server.host}/")
    await site.client.send(ORG, session, c.Revoke(slug="github"))
    server.users.clear()
    after = await shell(site, session, "cd tool && GIT_TERMINAL_PROMPT=0 git fetch -q origin")
    assert (after.exit_code != 0, server.users) == (True, [])
    names = [event.type for event in await events(site, session)]
    assert names[0] == "credential.granted"
    assert names[-1] == "credential.revoked"
