"""Everything here needs a container engine and the slim session image."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support import engine, rigs
from tests.support.contained import open_contained_site
from tests.support.rigs import Rig
from tests.support.system import Site


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
    """A whole stack whose sessions are containers, with a warm pool for the org `warm`."""
    async with open_contained_site(SANDREEL_DOCKER_WARM="warm/default=1") as site:
        yield site
