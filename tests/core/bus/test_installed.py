"""A role that the spawner has not been told of does not begin, and does not go on."""

from __future__ import annotations

import asyncio

import pytest

from sandreel_core.bus.installed import check, declare, watch
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.errors import Misconfigured
from sandreel_core.spawner.quota import slots


@pytest.mark.timeout(20)
async def test_a_role_goes_on_for_as_long_as_the_spawner_says_that_it_is_installed() -> None:
    bus = MemoryBus()
    await check(bus, "bridge")  # there is no spawner yet, and nobody answers in its place
    await bus.ensure([slots()])
    watching = asyncio.create_task(watch(bus, "bridge"))
    await declare(bus, ("broker", "bridge"))
    await declare(bus, frozenset(("bridge", "broker")))
    assert (await bus.state("SLOTS")).last_sequence == 1, "said once"
    await check(bus, "bridge")
    assert not watching.done()
    await declare(bus, ["broker"])
    with pytest.raises(Misconfigured, match=r"\[spawner\] roles is broker and does not name the bridge"):
        await watching
    with pytest.raises(Misconfigured, match="Name it there, or stop this bridge"):
        await check(bus, "bridge")
    await check(bus, "broker")
