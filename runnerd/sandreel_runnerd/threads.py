"""The threads in which runnerd's blocking calls run. All exist before the first exec.

An exec that forks until the pid limit is met would otherwise take from its recorder the thread that the recorder
needs next. The name look-ups of a reconnect run here too.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

COUNT = 8
_START_WITHIN_S = 30.0


async def start(count: int = COUNT) -> ThreadPoolExecutor:
    """Make the loop's default executor with all its threads running; the loop's runner shuts it down.

    Raises TimeoutError or RuntimeError when that many threads are not to be had."""
    executor = ThreadPoolExecutor(count, thread_name_prefix="runnerd")
    asyncio.get_running_loop().set_default_executor(executor)
    # Each waits until all are there: so each needs a thread of its own.
    barrier = threading.Barrier(count)
    waiting = [asyncio.get_running_loop().run_in_executor(None, barrier.wait, _START_WITHIN_S) for _ in range(count)]
    try:
        await asyncio.gather(*waiting)
    except threading.BrokenBarrierError as error:
        raise TimeoutError(f"{count} threads did not start within {_START_WITHIN_S:g} s") from error
    return executor
