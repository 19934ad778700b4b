"""Something that is shown until it ends: Ctrl-C, somebody who has seen enough, and an output that goes nowhere any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from sandreel_core.cli.entry import BROKEN_PIPE, INTERRUPTED, OPERATOR_ERROR
from sandreel_core.cli.interrupts import on_interrupt

Work = Coroutine[Any, Any, None]


async def watched(
    shown: Work,
    *,
    interrupt: Callable[[], Work] | None,
    leave: Callable[[str], Awaitable[None]],
    left: str,
    beside: Sequence[Work] = (),
) -> int | None:
    """Until `shown` has ended; None, or the exit code for who has left it before.

    interrupt  what the first of two Ctrl-C does; None: already the first one leaves
    leave      says how to come back, after a word about why: `left` behind Ctrl-C, else what the output met
    beside     goes on as long as it is shown
    """
    async with asyncio.TaskGroup() as group:
        viewer = group.create_task(_written(shown))
        others: set[asyncio.Task[None]] = {group.create_task(each) for each in beside}

        def pressed(count: int) -> None:
            if count == 1 and interrupt is not None:
                others.add(group.create_task(interrupt()))
            else:
                viewer.cancel()

        with on_interrupt(pressed):
            await asyncio.wait([viewer])
        for task in others:
            task.cancel()
    if viewer.cancelled():
        await leave(left)
        return INTERRUPTED
    problem = viewer.result()
    if problem is None:
        return None
    if isinstance(problem, BrokenPipeError):
        await leave("the reader of the output has left")
        return BROKEN_PIPE
    await leave(f"the output cannot be written ({problem.strerror})")
    return OPERATOR_ERROR


async def _written(shown: Work) -> OSError | None:
    """Why our output goes nowhere any more (its reader has left, the disk is full); None: it was all written."""
    try:
        await shown
    except OSError as error:
        return error
    return None
