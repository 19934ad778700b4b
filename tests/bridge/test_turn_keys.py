"""A turn's keys: each its own, none replaced while it may be in use, and none that outlives who made it late."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from msgspec.structs import replace

from sandreel_bridge import keys as keys_module
from sandreel_bridge import sandbox
from sandreel_bridge.attempt import Attempt
from sandreel_bridge.drive import Driver
from sandreel_bridge.gateway.port import key_name
from sandreel_bridge.starting import Starting
from sandreel_core.client import Client
from sandreel_core.contract import turn as c
from sandreel_core.errors import Conflict, Denied, NotFound
from tests.support.starts import NAME, Place
from tests.support.turns import EXEC, OTHER, preparing, requested

pytestmark = pytest.mark.timeout(60)


async def test_a_bridge_that_lost_the_turn_as_it_started_it_spoils_no_key_and_gives_none_out(place: Place) -> None:
    """Halted before it made its key, it goes on when its successor's program runs."""
    await place.say(requested(), preparing())
    home = await sandbox.look(Client(place.bus), NAME)
    halted = place.tools()
    lost = Starting(halted, await place.journal())
    await place.say(preparing(), source=OTHER)
    successor = place.tools()
    ours = Starting(successor, await place.journal(OTHER))
    await ours.start(home, pending=False)
    in_use = ours.attempt.key
    async with successor.keys.open():
        value = await place.key()
        assert value == place.gateway.values[in_use]
    late = lost.attempt.key
    with pytest.raises(Conflict):
        await lost.start(home, pending=False)
    assert [place.gateway.keys[each].live for each in (late, in_use)] == [False, True]
    assert place.gateway.values[in_use] == value
    async with halted.keys.open():
        with pytest.raises(NotFound):
            await place.key()


async def test_a_bridge_that_makes_its_key_when_the_turn_is_over_and_settled_ends_it_at_once(place: Place) -> None:
    await place.say(requested(), preparing())
    tools, journal = place.tools(), await place.journal()
    lost = Starting(tools, journal)
    await place.say(c.TurnFinished(status="cancelled"), source=OTHER)
    with pytest.raises(Conflict):
        await lost.start(await sandbox.look(tools.client, NAME), pending=False)
    assert [key.live for key in place.gateway.keys.values()] == [False]
    assert not tools.keys.holds("acme", "s1", EXEC)


async def test_a_bridge_without_a_gateway_leaves_keys_to_one_that_can_end_them(place: Place) -> None:
    """A turn that it settled would leave them to the scan for orphans."""
    await place.say(requested(), preparing())
    tools, journal = place.tools(), await place.journal()
    await tools.index.open(NAME, "t1")
    await Starting(tools, journal).start(await sandbox.look(tools.client, NAME), pending=False)
    await place.say(c.TurnFinished(status="cancelled"))
    poor = asyncio.create_task(Driver(dataclasses.replace(tools, gateway=None), await place.journal(OTHER)).run())
    await asyncio.sleep(0.1)
    assert not poor.done()
    assert await tools.index.is_open(NAME)
    await journal.catch_up()
    await Driver(tools, journal).run()
    assert [key.live for key in place.gateway.keys.values()] == [False]
    await asyncio.wait_for(poor, 20)


async def test_a_burst_of_starts_of_another_bridge_keeps_no_key_from_its_program(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bridge is asked for every key, and waits with each that it has not: it had 64 places to wait in."""
    monkeypatch.setattr(keys_module, "_PATIENCE_S", 30.0)
    await place.say(requested(), preparing())
    tools = place.tools()
    await Starting(tools, await place.journal()).start(await sandbox.look(tools.client, NAME), pending=False)
    async with tools.keys.open():
        asked = [asyncio.create_task(place.ask(f"other-{number}")) for number in range(200)]
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            assert await place.key()
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def test_a_key_that_is_needed_no_more_is_ended_before_the_next_is_made_since_each_holds_a_budget(
    place: Place,
) -> None:
    await place.say(requested(budget_micro_usd=1000), preparing(budget_micro_usd=1000))
    journal = await place.journal()
    starting, home = Starting(place.tools(), journal), await sandbox.look(Client(place.bus), NAME)
    await starting.start(home, pending=False)
    first = starting.attempt.key
    standing = place.gateway.keys[first]
    place.gateway.keys[first] = replace(standing, usage=c.Usage(cost_micro_usd=400))
    await journal.say(preparing(2, budget_micro_usd=1000))
    await starting.start(home, pending=True)
    assert place.gateway.keys[first].live, "an exec that begins at this moment may have it"
    await starting.start(home, pending=False)
    second = starting.attempt.key
    assert (first, second) == (key_name("acme", "s1", 1, "t1", 1), key_name("acme", "s1", 1, "t1", 2))
    assert [place.gateway.keys[each].live for each in (first, second)] == [False, True]
    assert Attempt.of(NAME, journal.turn).keys == (first, second)


async def test_an_interrupt_closes_the_gate(place: Place) -> None:
    await place.say(requested(), preparing())
    tools, journal = place.tools(), await place.journal()
    await Starting(tools, journal).start(await sandbox.look(tools.client, NAME), pending=False)
    async with tools.keys.open():
        assert await place.key()
        await place.say(c.TurnInterrupting())
        with pytest.raises(Denied):
            await place.key()
