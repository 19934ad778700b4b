"""What tests of the broker share."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from sandreel_bridge.broker.vault import Name, Vault
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from tests.support.broker import GITHUB, VALUE, Session, vault_at


@pytest.fixture
async def vault(empty_database: str, tmp_path: Path) -> AsyncGenerator[Vault, None]:
    async with vault_at(empty_database, tmp_path) as vault:
        await vault.put(GITHUB, VALUE, recipe="github", options={}, by="ann")
        await vault.put(Name("acme", "app"), b"key", recipe="github-app", options={"host": "ghe"}, by="ann")
        yield vault


@pytest.fixture
async def session() -> AsyncGenerator[Session, None]:
    """One that is ready, on a bus of its own."""
    bus = MemoryBus()
    await ensure_installation(bus)
    session = Session(bus)
    await session.begin()
    yield session
    await bus.close()
