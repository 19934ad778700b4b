"""Ctrl-C, counted: what the first one does and what the second one does is the command's business."""

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
