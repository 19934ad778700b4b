"""Everything here needs a container engine and the slim session image."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.support import engine, rigs
from tests.support.rigs import Rig


@pytest.fixture(autouse=True)
def _engine() -> None:
    if why := engine.missing():
        pytest.skip(why)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig, None]:
    async with rigs.docker(tmp_path) as rig:
        yield rig
