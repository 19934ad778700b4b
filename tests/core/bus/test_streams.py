"""An installation's streams are made once, and what cannot be one is refused with a sentence."""

from __future__ import annotations

import pytest

from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import ensure_installation
from sandreel_core.errors import Misconfigured, NotFound
from tests.core.bus.conftest import World


class Shape:
    replicas = 1
    reel_max_bytes = 1 << 24
    cmd_max_bytes = 1 << 24
    dead_max_bytes = 1 << 20
    cmd_max_age_s = 7200
    duplicate_window_s = 120

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions


@pytest.mark.parametrize("partitions", [1, 3])
async def test_an_installation_has_an_epoch_for_every_partition_and_keeps_it(world: World, partitions: int) -> None:
    shape = Shape(partitions)
    await ensure_installation(world.bus, shape)
    epochs = [(await world.bus.state(f"REEL-{p}")).epoch for p in range(partitions)]
    await ensure_installation(await world.another(), shape)
    assert epochs == [(await world.bus.state(f"REEL-{p}")).epoch for p in range(partitions)]
    assert len(set(epochs)) == partitions
    assert all(epochs)


async def test_a_server_that_takes_only_small_messages_is_an_operators_mistake() -> None:
    with pytest.raises(Misconfigured, match="max_payload is 65536"):
        await ensure_installation(MemoryBus(max_payload=65_536))


async def test_an_installation_keeps_the_number_of_partitions_that_it_was_made_with(world: World) -> None:
    """Another number would look for a session's log in another stream."""
    await ensure_installation(world.bus, Shape(2))
    for wrong in (1, 3):
        with pytest.raises(Misconfigured, match=f"partitions is {wrong}, and this installation was made with 2"):
            await ensure_installation(await world.another(), Shape(wrong))
    assert (await world.bus.state("CMD")).partitions == 2
    with pytest.raises(NotFound):
        await world.bus.state("REEL-2")
    await ensure_installation(await world.another(), Shape(2))
