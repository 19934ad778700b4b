"""A whole stack whose sessions are containers, and nothing of it in the engine afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from sandreel_core.images import image
from tests.support import engine
from tests.support.system import Site, open_site


@asynccontextmanager
async def open_contained_site(**settings: str) -> AsyncGenerator[Site, None]:
    """`settings`: more variables than the engine asks for. Skips where there is none."""
    if why := engine.missing():
        pytest.skip(why)
    own = {"SANDREEL_STACK_BACKEND": "docker", "SANDREEL_DOCKER_POOL": engine.POOL}
    own |= {"SANDREEL_DOCKER_IMAGE": engine.IMAGE, "SANDREEL_DOCKER_NATS_IMAGE": image("nats")}
    async with open_site(stop_sessions=True, **(own | settings)) as site:
        installation = site.stack.place.keys().installation
        yield site
    await asyncio.to_thread(engine.sweep, installation)
    await asyncio.to_thread(engine.unfence, installation)
