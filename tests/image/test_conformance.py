"""The real images, as sessions have them: every tool as its user, and runnerd as PID 1 with a real bus."""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from image import conformance
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.contract import exec as x
from sandreel_core.contract.boot import BootSettings
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.images import Kind, image
from tests.support import engine
from tests.support.desk import Desk
from tests.support.mark import OURS

DOCKERFILE = Path(__file__).parents[2] / "image" / "Dockerfile"
READY_WITHIN_S = 10.0  # checklist 120, beside what the engine itself takes for a container that does nothing


def needs(*kinds: Kind) -> pytest.MarkDecorator:
    """Skips where there is no engine, or it has not these images."""
    reason = engine.missing(*kinds)
    return pytest.mark.skipif(reason is not None, reason=str(reason))


slim = pytest.param("session-slim", marks=needs("session-slim", "nats"))
full = pytest.param("session", marks=[needs("session", "nats"), pytest.mark.full_image])
SLIM = pytest.param("session-slim", "slim", conformance.USERS, marks=needs("session-slim"), id="slim")
# Agents run as the agent profile's user.
AGENTS = pytest.param("session-agents", "agents", conformance.USERS[1:], marks=needs("session-agents"), id="agents")
FULL = pytest.param("session", "full", conformance.USERS, marks=[needs("session"), pytest.mark.full_image], id="full")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "fit", "users"), [SLIM, AGENTS, FULL])
def test_every_tool_answers_as_its_user(kind: Kind, fit: conformance.Fit, users: Sequence[str]) -> None:
    found = conformance.conform(image(kind), fit, dockerfile=DOCKERFILE, mark=OURS, users=users)
    assert [f"{name}: {why}" for name, why in found if why is not None] == []


def test_what_is_no_session_image_is_found_out(bare_image: str) -> None:
    failed = {
        name for name, why in conformance.conform(bare_image, "slim", dockerfile=None, mark=f"wrong-{OURS}") if why
    }
    assert "65534:65534 runnerd" in failed
    assert "10001:10001 name of the user" in failed


@pytest.fixture
def bare_image() -> Iterator[str]:
    """An image with neither runnerd nor a Python, nor the agent's user."""
    if (reason := engine.missing()) is not None:
        pytest.skip(reason)
    name = f"sandreel-bare-{OURS}"
    recipe = f"FROM {image('session-slim')}\nUSER 0:0\nRUN rm -r /opt/sandreel /usr/bin/python3* && sed -i /^agent/d /etc/passwd\n"
    engine.docker("build", "-q", "-t", name, "-", stdin=recipe.encode())
    yield name
    engine.docker("rmi", "-f", name)


@asynccontextmanager
async def bus_in_a_network() -> AsyncIterator[tuple[str, JetStreamBus]]:
    """The name of an internal network in which the NATS image answers at `nats`, and a bus to it from here."""
    name = f"sandreel-conformance-{OURS}"
    try:
        while True:
            subnet = f"10.201.{random.randrange(8, 128)}.0/26"
            made = subprocess.run(
                ["docker", "network", "create", "--internal", "--subnet", subnet, name], capture_output=True, text=True
            )
            if made.returncode == 0:
                break
            assert "overlaps" in made.stderr, made.stderr
        line = [
            "run",
            "--detach",
            "--name",
            name,
            "--network",
            name,
            "--network-alias",
            "nats",
            "--read-only",
            "--cap-drop",
            "ALL",
        ]
        engine.docker(*line, "--volume", "/data", image("nats"))
        async with asyncio.timeout(60):
            while engine.docker("inspect", "-f", "{{.State.Health.Status}}", name) != "healthy":
                await asyncio.sleep(0.1)
        address = engine.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)
        bus = await JetStreamBus.connect([f"nats://{address}:4222"], name="test", connect_timeout_s=20)
        try:
            yield name, bus
        finally:
            await bus.close()
    finally:
        for words in (("rm", "-f", "-v", name), ("network", "rm", name)):
            subprocess.run(["docker", *words], capture_output=True)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", [slim, full])
async def test_runnerd_is_pid_1_and_ready_soon(kind: Kind) -> None:
    await boots(image(kind))


@needs("session-slim", "runnerd", "nats")
@pytest.mark.timeout(240)
async def test_an_image_of_ones_own_needs_one_line(bare_image: str) -> None:
    name = f"sandreel-own-{OURS}"
    recipe = f"FROM {bare_image}\nCOPY --from={image('runnerd')} / /\n"
    recipe += 'ENTRYPOINT ["/opt/sandreel/bin/python", "-I", "-m", "sandreel_runnerd"]\nCMD ["--settings-stdin"]\n'
    engine.docker("build", "-q", "-t", name, "-", stdin=recipe.encode())
    try:
        await boots(name)
    finally:
        engine.docker("rmi", "-f", name)


async def boots(name_of_image: str) -> None:
    """Ready within 10 s as PID 1, and not to be ended from inside."""
    boot = BootSettings(
        nats_urls=["nats://nats:4222"],
        org="acme",
        session="s1",
        boot_id="1-1",
        token="t",
        installation=OURS,
        heartbeat_s=0.2,
    )
    name = f"sandreel-session-{OURS}"
    mount = f"type=volume,source={name},destination=/workspace,volume-nocopy"
    async with bus_in_a_network() as (network, bus):
        desk = Desk(bus, SessionSubjects("acme", "s1"))
        async with desk.open():
            prepare = "mkdir /workspace/.home && chown -R 10001:10001 /workspace"
            engine.docker(
                "run", "--rm", "--user", "0:0", "--mount", mount, "--entrypoint", "sh", name_of_image, "-c", prepare
            )
            line = [
                "docker",
                "run",
                "--interactive",
                "--rm",
                "--name",
                name,
                "--network",
                network,
                "--user",
                "10001:10001",
            ]
            line += [
                "--read-only",
                "--cap-drop",
                "ALL",
                "--security-opt",
                "no-new-privileges",
                "--tmpfs",
                "/tmp:rw,exec,mode=1777",
            ]
            since = time.monotonic()
            engine.docker("run", "--rm", "--network", network, "--entrypoint", "true", name_of_image)
            bare_s, since = time.monotonic() - since, time.monotonic()
            child = subprocess.Popen([*line, "--mount", mount, name_of_image], stdin=subprocess.PIPE)
            try:
                assert child.stdin is not None
                child.stdin.write(msgspec.json.encode(boot))
                child.stdin.close()
                async with asyncio.timeout(60):
                    while not desk.beats:
                        await asyncio.sleep(0.02)
                assert time.monotonic() - since < READY_WITHIN_S + 3 * bare_s  # a loaded machine is slow at both
                # To everybody but itself and PID 1, and then to PID 1 alone.
                await desk.send(
                    x.Start(exec="e", shell="kill -9 -1; kill -9 1; kill 1; tr '\\0' ' ' < /proc/1/cmdline; id -u")
                )
                assert (await desk.ended("e")).exit_code == 0
                assert desk.output("e") == b"/opt/sandreel/bin/python -I -m sandreel_runnerd --settings-stdin 10001\n"
                engine.docker("stop", "--time", "20", name)
                assert await asyncio.to_thread(child.wait, 30) == 0
            finally:
                for words in (("rm", "-f", name), ("volume", "rm", "-f", name)):
                    subprocess.run(["docker", *words], capture_output=True)
                child.wait(30)
