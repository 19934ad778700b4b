"""Who is alive, by a clock of the test's own."""

from __future__ import annotations

import asyncio

from sandreel_bridge.beats import AWAY_S, BEAT_S, DEAD_AFTER_S, Beats
from sandreel_core.bus.memory import MemoryBus


async def test_silence_is_death_unless_it_is_ours() -> None:
    moment = 100.0
    beats = Beats(MemoryBus(), "/bridge/here/me", now=lambda: moment)
    other = "/bridge/here/other"
    task = asyncio.create_task(beats.run())

    async def pass_by(seconds: float) -> None:
        """Time goes by, and our own beat with it."""
        nonlocal moment
        until = moment + seconds
        while moment < until:
            moment += BEAT_S
            beats._ticked_at = moment

    try:
        await asyncio.sleep(0)
        assert not beats.is_dead(other), "we have not listened for long"
        beats.hear("beat.bridge.other", other.encode())
        await pass_by(DEAD_AFTER_S)
        assert not beats.is_dead(other)
        await pass_by(BEAT_S)
        assert beats.is_dead(other)
        assert beats.is_dead("/bridge/here/nobody-ever-heard-of")
        assert not beats.is_dead("/bridge/here/me")
        beats.hear("beat.bridge.other", other.encode())
        moment += AWAY_S + DEAD_AFTER_S  # we were halted
        assert not beats.is_dead(other)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
