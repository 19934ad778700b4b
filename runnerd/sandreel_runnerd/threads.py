"""The threads in which runnerd's blocking calls run. All exist before the first exec.

An exec that forks until the pid limit is met would otherwise take from its recorder the thread that the recorder
needs next. The name look-ups of a reconnect run here too.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from sandreel_core.errors import Unavailable

COUNT = 8
_START_WITHIN_S = 30.0


class Loop(asyncio.SelectorEventLoop):
    """asyncio's own, but that it ends its threads without starting one more for that (as `asyncio.run` would have it):
    at the end of a boot, too, there may be none to be had."""

    _threads: ThreadPoolExecutor | None = None

    def set_default_executor(self, executor: ThreadPoolExecutor) -> None:  # type: ignore[override]
        super().set_default_executor(executor)
        self._threads = executor

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        if self._threads is not None:
            self._threads.shutdown()


async def start(count: int = COUNT) -> ThreadPoolExecutor:
    """Make the loop's default executor with all its threads running; the loop's runner shuts it down.

    Raises Unavailable when that many threads are not to be had."""
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(count, thread_name_prefix="runnerd")
    # Each waits until all are there: so each needs a thread of its own.
    barrier = threading.Barrier(count)
    waiting: list[asyncio.Future[int]] = []
    try:
        while len(waiting) < count:
            waiting.append(loop.run_in_executor(executor, barrier.wait, _START_WITHIN_S))
        await asyncio.gather(*waiting)
    except RuntimeError as error:  # no thread, or not in time (BrokenBarrierError)
        barrier.abort()
        await asyncio.gather(*waiting, return_exceptions=True)
        executor.shutdown()
        raise Unavailable(f"{count} threads are not to be had: is a limit of processes met?") from error
    loop.set_default_executor(executor)
    return executor
