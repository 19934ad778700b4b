"""Ctrl-C, counted: what the first one does and what the second one does is the command's business. And what ends one that serves."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_interrupt(pressed: Callable[[int], None]) -> Iterator[None]:
    """While the block is open, SIGINT calls `pressed` with 1, 2, 3 … instead of raising KeyboardInterrupt."""
    loop = asyncio.get_running_loop()
    count = 0

    def press() -> None:
        nonlocal count
        count += 1
        pressed(count)

    loop.add_signal_handler(signal.SIGINT, press)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def ending_signals() -> list[signal.Signals]:
    """What ends a command that serves until it is told. A hangup does not where it was started to outlive it (nohup)."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


class Ending:
    """What tells a command to end cancels its task, so that it can put away what it made. For the task that makes it."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self.came: signal.Signals | None = None

    def arm(self) -> None:
        """From now on; again after a block of `on_interrupt`, which takes SIGINT for itself."""
        loop = asyncio.get_running_loop()
        for number in ending_signals():
            loop.add_signal_handler(number, self._end, number)

    def _end(self, number: signal.Signals) -> None:
        self.came = self.came or number
        if self._task is not None:
            self._task.cancel()
