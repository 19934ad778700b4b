"""How long a provider may say nothing, on a clock of its own."""

from __future__ import annotations

import asyncio

import pytest

from sandreel_bridge.gateway.silence import Silence
from tests.support import virtual_time


def test_a_silence_ends_what_waits_and_names_itself() -> None:
    async def told() -> float:
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            async with Silence(10):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time() - began

    assert virtual_time.run(lambda _: told()) == pytest.approx(10)


def test_it_counts_from_what_was_heard_last() -> None:
    async def told() -> float:
        async def chatters() -> None:
            async with Silence(10) as silence:
                for _ in range(5):
                    await asyncio.sleep(9)
                    silence.rest()
                    silence.listen()
                await asyncio.Event().wait()

        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await chatters()
        return asyncio.get_running_loop().time() - began

    assert virtual_time.run(lambda _: told()) == pytest.approx(5 * 9 + 10)


def test_whoever_takes_what_has_come_may_take_any_time() -> None:
    async def told() -> None:
        async with Silence(10) as silence:
            await asyncio.sleep(9)
            silence.rest()
            await asyncio.sleep(1000)
            silence.listen()
            await asyncio.sleep(9)

    virtual_time.run(lambda _: told())


def test_a_cancellation_from_elsewhere_is_none_of_its() -> None:
    async def told() -> None:
        async def waits() -> None:
            async with Silence(10):
                await asyncio.Event().wait()

        task = asyncio.create_task(waits())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    virtual_time.run(lambda _: told())
