"""A command that is looked at on a terminal ends when that terminal is gone: soon, and for sure.

SIGHUP alone does not do it. Who started the command may have it ignored, or has put it into a session of its own, which
is told nothing; and a command that takes it in its event loop may be stuck in a write to the terminal. So a thread looks
at the terminal itself, and ends the process by force when it is still there after it was told to end.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sandreel_core.cli.pipes import forsake
from sandreel_core.errors import SandreelError

HUNG_UP = 128 + signal.SIGHUP
# The kernel wakes who waits for a terminal that vanishes; should it not (another kernel's terminals), it is asked anew.
_LOOK_S = 0.5
# So long a command has to leave what it holds in order, of which nothing is worth waiting for: nobody looks any more.
GRACE_S = 1.0

Run = Callable[[argparse.Namespace], Coroutine[Any, Any, int]]


class Hangup:
    """Looks at those of the descriptors that are terminals now.

    end  is called with the exit code when the process is there GRACE_S after `watched` told it to leave
    """

    def __init__(self, fds: Sequence[int], *, end: Callable[[int], object] = os._exit) -> None:
        self.terminals = [fd for fd in fds if os.isatty(fd)]
        self._end = end
        self._over = False

    def came(self, within_s: float = 0.0) -> bool:
        """Whether any of them has vanished, or does so in time."""
        poll = select.poll()
        for fd in self.terminals:
            poll.register(fd, 0)
        return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(within_s * 1000))

    @contextmanager
    def watched(self, leave: Callable[[], object]) -> Iterator[None]:
        """While the block is open `leave` is called once when a terminal vanishes, by another thread."""
        if self.terminals:
            threading.Thread(target=self._watch, args=(leave,), name="hangup", daemon=True).start()
        try:
            yield
        finally:
            self._over = True  # who was told to leave before has its second all the same

    def _watch(self, leave: Callable[[], object]) -> None:
        while not self.came(_LOOK_S):
            if self._over:
                return
        leave()
        time.sleep(GRACE_S)
        self._end(HUNG_UP)


def ends_with_terminal(*fds: int) -> Callable[[Run], Run]:
    """For the `run` of a command that may go on for ever: it is cancelled when a terminal among `fds` vanishes, and then
    HUNG_UP is its exit code, whatever it makes of that."""

    def decorate(run: Run) -> Run:
        @functools.wraps(run)
        async def watched(args: argparse.Namespace) -> int:
            hangup = Hangup(fds)
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None  # noqa: S101 - asyncio.run makes one

            def leave() -> None:
                with suppress(RuntimeError):  # the loop has ended by itself
                    loop.call_soon_threadsafe(task.cancel)

            with hangup.watched(leave):
                try:
                    code = await run(args)
                except (asyncio.CancelledError, OSError, SandreelError, BaseExceptionGroup):
                    if not hangup.came():
                        raise
            if not hangup.came():
                return code
            for fd in hangup.terminals:
                forsake(fd)
            return HUNG_UP

        return watched

    return decorate
