from __future__ import annotations

import pytest

from tests.support.starts import Place, open_place


@pytest.fixture
async def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    """A session that is ready, whose runnerd takes every file and every start."""
    return await open_place(monkeypatch)
