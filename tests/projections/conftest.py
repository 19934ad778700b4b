"""What tests of the views share."""

from __future__ import annotations

import pytest

from tests.projections.test_views import project
from tests.support.story import Story, tell


@pytest.fixture
async def told(database: str) -> Story:
    bus, [story] = await tell("default")
    await project(bus, database)
    return story
