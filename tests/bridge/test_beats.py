"""Who is alive, in beats of one's own."""

from __future__ import annotations

from sandreel_bridge.beats import DEAD_AFTER_BEATS, Beats
from sandreel_core.bus.memory import MemoryBus

ME, OTHER = "/bridge/here/me", "/bridge/here/other"


async def test_silence_is_death_but_for_us_and_while_the_bus_is_away() -> None:
    bus = MemoryBus()
    beats = Beats(bus, ME)

    async def beat(count: int) -> None:
        for _ in range(count):
            await beats.beat()

    await beat(DEAD_AFTER_BEATS)
    assert not beats.is_dead(OTHER), "we have not listened for long"
    beats.hear("beat.bridge.other", OTHER.encode())
    await beat(DEAD_AFTER_BEATS)
    assert not beats.is_dead(OTHER)
    await beat(1)
    assert beats.is_dead(OTHER)
    assert beats.is_dead("/bridge/here/never-heard-of")
    assert not beats.is_dead(ME)
    beats.hear("beat.bridge.other", OTHER.encode())
    assert not beats.is_dead(OTHER)
    bus.go_away()
    await beat(3 * DEAD_AFTER_BEATS)
    assert not beats.is_dead(OTHER)
    bus.come_back()
    await beat(DEAD_AFTER_BEATS)
    assert not beats.is_dead(OTHER)
    await beat(1)
    assert beats.is_dead(OTHER)
