"""A spawner over the memory bus and a backend that runs nothing; data that bubblewrap does not take for its own /tmp."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from tests.support.backend import FakeBackend
from tests.support.spawner import Hand, plan, running


@pytest.fixture
async def hand() -> AsyncGenerator[Hand, None]:
    bus = MemoryBus()
    await ensure_installation(bus)
    yield Hand(bus)
    await bus.close()


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
async def spawner(hand: Hand, backend: FakeBackend) -> AsyncGenerator[None, None]:
    async with running(hand.bus, backend, plan(sweep_s=0.2)):
        yield


@pytest.fixture
def data() -> Iterator[Path]:
    # Not below /tmp, which is a session's own anyway: the data must be hidden wherever they are.
    path = Path(tempfile.mkdtemp(prefix="sandreel-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
