"""The whole system as separate services: up, a session with a job in it, a service that is killed, down with nothing left."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.client import Client
from sandreel_core.embedded.place import free_port
from sandreel_core.errors import Denied
from sandreel_core.images import Kind, image
from tests.support import engine
from tests.support.mark import OURS

TREE = Path(__file__).parents[2]
PROJECT = f"sandreel-{OURS}"
# In a sandbox: what the proxy says to who wants to get to a metadata service.
CONNECT = """
import socket
with socket.create_connection(("egress", 3128), 20) as s:
    s.sendall(b"CONNECT 169.254.169.254:443 HTTP/1.1\\r\\n\\r\\n")
    while more := s.recv(4096): print(more.decode(), end="")
"""
KINDS: tuple[Kind, ...] = ("session-slim", "nats", "fence", "postgres", "roles")


def missing() -> str | None:
    if (reason := engine.missing(*KINDS)) is not None:
        return reason
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return "docker compose v2 is not installed"
    return None


pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.timeout(400),
    pytest.mark.xdist_group("compose"),
]


class Project:
    """`docker compose` on a project, ports and addresses of its own."""

    def __init__(self) -> None:
        third = random.randrange(128, 200)
        self._environ = os.environ | {
            "SANDREEL_IMAGE": image("roles"),
            "SANDREEL_SESSION_IMAGE": image("session-slim"),
            "SANDREEL_FENCE_IMAGE": image("fence"),
            "NATS_IMAGE": image("nats"),
            "POSTGRES_IMAGE": image("postgres"),
            "SANDREEL_NATS_PORT": str(free_port()),
            "SANDREEL_INSIDE_SUBNET": f"10.201.{third}.0/26",
            "SANDREEL_FRONT_SUBNET": f"10.201.{third}.64/26",
            "SANDREEL_POOL": f"10.201.{third}.128/25",
        }

    def __call__(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            ["docker", "compose", "-p", PROJECT, *words],
            cwd=TREE,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == code, f"docker compose {' '.join(words)}: {done.stderr[-3000:]}"
        return done.stdout

    def cli(self, *words: str, code: int = 0) -> str:
        return self("run", "--rm", "-T", "cli", *words, code=code)

    @property
    def url(self) -> str:
        """Of NATS, on loopback."""
        return f"nats://127.0.0.1:{self._environ['SANDREEL_NATS_PORT']}"

    def installation(self) -> str:
        """Empty when no spawner runs that could say it."""
        asked = ["docker", "compose", "-p", PROJECT, "exec", "-T", "spawner", PYTHON, "-Ic", INSTALLATION]
        done = subprocess.run(asked, cwd=TREE, env=self._environ, capture_output=True, text=True, timeout=60)
        return done.stdout.strip() if done.returncode == 0 else ""

    def services(self) -> dict[str, dict[str, Any]]:
        """What the engine says of each container."""
        ids = self("ps", "-aq").split()
        return {
            each["Config"]["Labels"]["com.docker.compose.service"]: each
            for each in json.loads(engine.docker("inspect", *ids))
        }


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    compose = Project()
    try:
        compose("up", "--wait", "--quiet-pull")
        yield compose
    finally:
        installation = compose.installation()
        compose("down", "--volumes", "--remove-orphans", "--timeout", "30")
        if installation:
            engine.sweep(installation)  # what the spawner has made: an org's cache stays, and is no project's


PYTHON = "/opt/sandreel/bin/python"  # of the image of the roles
# In the spawner: the name that its objects in the engine bear.
INSTALLATION = """
from sandreel_core.settings import load
from sandreel_core.spawner.settings import Settings, installation_key
settings = load(Settings)
print(settings.installation_name(installation_key(settings)))
"""


def test_a_session_lives_in_a_container_beside_the_services(project: Project) -> None:
    assert project.cli("session", "create", "s1", "--org", "acme").strip() == "s1"
    assert project.cli("exec", "s1", "--org", "acme", "--", "sh", "-c", "echo in here; exit 3", code=3) == "in here\n"
    refused = project.cli("exec", "s1", "--org", "acme", "--", "python3", "-c", CONNECT)
    assert "link-local, where clouds serve metadata" in refused
    # Who is killed is there again, and the session has noticed nothing.
    project("kill", "--signal", "KILL", "spawner", "nats")
    project("up", "--wait")
    assert project.cli("exec", "s1", "--org", "acme", "--", "echo", "still here") == "still here\n"
    rows = [
        json.loads(line)
        for line in project.cli("sql", "--json", "select session, phase from reel.sessions").splitlines()
    ]
    assert {"session": "s1", "phase": "ready"} in rows
    asyncio.run(a_service_gets_credentials(project, "acme", "s1"))
    project.cli("session", "destroy", "s1", "--org", "acme")


async def a_service_gets_credentials(project: Project, org: str, session: str) -> None:
    """And works with the session from this machine until they are taken back."""
    make = ("create", "ci", "--org", org, "--can", "command,follow", "--out", "-")
    creds = await asyncio.to_thread(project, "run", "--rm", "-T", "access", *make)
    async with Client.connect(project.url, creds=creds, actor="ci") as client:
        assert (await client.run(org, session, ["echo", "hello"])).stdout == b"hello\n"
        with pytest.raises(Denied):
            await client.session("umbrella", session)
        await asyncio.to_thread(project, "run", "--rm", "-T", "access", "rm", "ci")
        async with asyncio.timeout(30):
            while client.bus.connected:
                await asyncio.sleep(0.05)
    with pytest.raises(Denied):
        async with Client.connect(project.url, creds=creds, actor="ci"):
            raise AssertionError("it was taken back")


def test_services_are_hardened(project: Project) -> None:
    found = project.services()
    assert set(found) == {
        "keys",
        "nats",
        "postgres",
        "migrate",
        "spawner",
        "projector",
        "broker",
        "bridge",
        "egress",
        "gateway",
    }
    for name, each in found.items():
        host = each["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert host["Memory"] > 0, name
        assert not host["Privileged"], name
        has_socket = any(mount["Source"].endswith("docker.sock") for mount in each["Mounts"])
        assert has_socket == (name == "spawner")
        if name not in ("keys", "spawner"):
            assert each["Config"]["User"].split(":")[0] not in ("", "0", "root"), name
        if name in ("nats", "postgres", "spawner", "projector", "broker", "bridge", "egress", "gateway"):
            assert each["State"]["Health"]["Status"] == "healthy", name


def test_no_secret_stands_in_what_the_engine_shows(project: Project) -> None:
    found = project.services()
    password = engine.docker(
        "run",
        "--rm",
        "--user",
        "0:0",
        "-v",
        f"{PROJECT}_postgres-secrets:/s",
        "--entrypoint",
        "cat",
        image("roles"),
        "/s/password",
    )
    assert len(password) > 20
    assert password not in json.dumps(found)
    # Each service sees its own secrets: two of them share a volume, which is the database's for both.
    volumes = {
        name: {m["Name"] for m in each["Mounts"] if m.get("Name", "").endswith("-secrets")}
        for name, each in found.items()
        if name != "keys"
    }
    assert volumes == {
        "nats": {f"{PROJECT}_nats-secrets"},
        "postgres": {f"{PROJECT}_postgres-secrets"},
        "migrate": {f"{PROJECT}_projector-secrets"},
        "spawner": {f"{PROJECT}_spawner-secrets"},
        "projector": {f"{PROJECT}_projector-secrets"},
        "broker": {f"{PROJECT}_broker-secrets"},
        "bridge": {f"{PROJECT}_bridge-secrets"},
        "egress": {f"{PROJECT}_egress-secrets"},
        "gateway": {f"{PROJECT}_gateway-secrets"},
    }


def test_services_stop_in_order(project: Project) -> None:
    project("stop", "--timeout", "30")
    for name, each in project.services().items():
        assert each["State"]["ExitCode"] == 0, name
    project("up", "--wait")
