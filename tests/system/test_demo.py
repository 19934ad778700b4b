"""What `make demo` shows is true, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import engine, real_agents

pytestmark = pytest.mark.xdist_group("stack")
COMMAND = (sys.executable, "-P", "-m", "sandreel_core.cli", "demo")


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the demo makes its data directory. Not pytest's own: its parents are closed to other users."""
    directory = Path(tempfile.mkdtemp(prefix="sandreel-test-demo-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


async def start(place: Path, backend: str) -> asyncio.subprocess.Process:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SANDREEL_")}
    return await asyncio.create_subprocess_exec(
        *(*COMMAND, "--backend", backend),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environ | {"TMPDIR": str(place)},
    )


def left_in(place: Path) -> list[bytes]:
    """The command lines of processes that work below the directory, and the files in it."""
    found = [bytes(path) for path in place.iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if bytes(place) in words and process.name != str(os.getpid()):
            found.append(words)
    return found


@pytest.fixture(params=["process", "docker"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "docker" and (why := engine.missing()):
        pytest.skip(why)
    return str(request.param)


def left_in_the_engine(backend: str) -> list[str]:
    """Containers of the demo's session: nobody else calls one so."""
    return engine.docker("ps", "-aq", "--filter", "name=sandreel-demo-").split() if backend == "docker" else []


@pytest.mark.timeout(180)
async def test_the_demo_loses_nothing_while_everything_is_killed(place: Path, backend: str) -> None:
    child = await start(place, backend)
    async with asyncio.timeout(150):
        output, _ = await child.communicate()
    said = output.decode()
    assert child.returncode == 0, said
    for who in ("viewer", "spawner", "projector", "nats"):
        assert f"✗ {who}: SIGKILL" in said
    for what in ("lines", "bytes", "sha256", "holes in ordinals and line numbers", "exit code"):
        assert f"✓ {what}:" in said
    assert "PASSED" in said
    assert "FAILED" not in said
    assert "Nothing was lost." in said
    assert "sandreel up" in said
    assert "Traceback" not in said
    if backend == "docker" and real_agents.missing() is None:
        shows_a_turn(said)
    else:
        assert "No coding agent was shown at work: " in said
        assert "make image-agents" in said
    assert left_in(place) == []
    assert left_in_the_engine(backend) == []


def shows_a_turn(said: str) -> None:
    """Of the real Claude Code, whose bridge is killed on the way: its tools, the diff, what it cost, and that all of it is true."""
    for line in (
        "▸ Bash python3 test_prices.py",
        "  - return sum(prices) + discount",
        "  + return sum(prices) - discount",
    ):
        assert said.count(line) == (2 if line.startswith("▸") else 1), said
    assert "total([3, 4], discount=2) is 9, not 5" in said
    assert "✗ bridge: SIGKILL" in said
    for what in (
        "outcome: success",
        "the test now: 2 passed",
        "its ends in the log: 1",
        "tokens, by the gateway and by the agent:",
        "places in the sandbox with the provider's key: 0",
    ):
        assert f"✓ {what}" in said, said
    assert "claude-sonnet-4-5" in said.partition("The views, with SQL")[2]


@pytest.mark.timeout(120)
async def test_a_demo_that_is_interrupted_leaves_nothing_running(place: Path, backend: str) -> None:
    child = await start(place, backend)
    assert child.stdout is not None
    async with asyncio.timeout(60):
        while b"projector  ready" not in await child.stdout.readline():
            pass
        child.send_signal(signal.SIGINT)
        rest = await child.stdout.read()
    assert await child.wait() == 130, rest.decode()
    assert b"Traceback" not in rest
    assert left_in(place) == []
    assert left_in_the_engine(backend) == []
