"""Everything here needs a container engine and the slim session image."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from sandreel_core.images import image
from tests.support import engine, rigs
from tests.support.rigs import Rig
from tests.support.system import Site, open_site


@pytest.fixture(autouse=True)
def _engine() -> None:
    if why := engine.missing():
        pytest.skip(why)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig, None]:
    async with rigs.docker(tmp_path) as rig:
        yield rig


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncGenerator[Site, None]:
    """A whole stack whose sessions are containers."""
    if why := engine.missing():
        pytest.skip(why)
    settings = {"SANDREEL_STACK_BACKEND": "docker", "SANDREEL_DOCKER_POOL": engine.POOL}
    settings |= {"SANDREEL_DOCKER_IMAGE": engine.IMAGE, "SANDREEL_DOCKER_NATS_IMAGE": image("nats")}
    async with open_site(stop_sessions=True, **settings) as site:
        installation = site.stack.place.keys().installation
        yield site
    await asyncio.to_thread(engine.sweep, installation)
    await asyncio.to_thread(engine.unfence, installation)
