"""A crew ends with its body, and what the body raises reaches who opened it."""

from __future__ import annotations

import asyncio

import pytest

from sandreel_core.bus.crew import Crew
from sandreel_core.errors import Unavailable


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def fails() -> None:
    raise ValueError


async def test_what_still_runs_is_cancelled_at_the_end() -> None:
    async with asyncio.timeout(5), Crew() as crew:
        task = crew.start(forever())
    assert task.cancelled()
    assert len(crew) == 0


async def test_an_error_of_the_body_leaves_as_it_is_through_any_number_of_crews() -> None:
    """A runnerd whose server died while it subscribed was ended by the group around `Unavailable`."""

    async def body() -> None:
        async with Crew() as outer, Crew():
            outer.start(forever())
            raise Unavailable("lost")

    with pytest.raises(Unavailable, match="lost"):
        await asyncio.wait_for(body(), 5)


async def test_errors_of_tasks_leave_as_a_group() -> None:
    async def body() -> None:
        async with Crew() as crew:
            crew.start(fails())
            await forever()

    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(body(), 5)
    assert caught.group_contains(ValueError)


async def test_a_cancellation_passes() -> None:
    async def body() -> None:
        async with Crew() as crew:
            crew.start(forever())
            await forever()

    task = asyncio.create_task(body())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
