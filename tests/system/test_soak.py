"""A short soak on every run; `make soak` is the long one."""

from __future__ import annotations

import pytest

from tests.system.soak import soak


@pytest.mark.xdist_group("soak")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [20261])
async def test_random_kills_lose_nothing(seed: int) -> None:
    said: list[str] = []
    tally = await soak(20, seed, say=said.append)

    assert tally.violations == [], said
    assert tally.counts["execs"] >= 3
    assert tally.counts["events"] > 100
