"""A runnerd that is up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.booted import Boot, booted


@pytest.fixture
async def boot(tmp_path: Path) -> AsyncIterator[Boot]:
    async with booted(tmp_path / "workspace") as running:
        yield running
