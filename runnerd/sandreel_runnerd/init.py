"""What the kernel asks of PID 1, and what runnerd asks of the kernel so that no exec can end its recorder.

As PID 1 the signals that end a boot are blocked in every thread and read in one: only there it can be seen who
sent them. A sender inside the container has a pid here, one outside has none (`si_pid` 0), so an agent's
`kill -TERM 1` is ignored; the kernel itself drops SIGKILL and SIGSTOP that come from inside. Who sent it is the
kernel's word only where `si_code` says so: with rt_sigqueueinfo(2) a sender writes both himself, and may write any
code below 0; and what the kernel has no room to write down has neither, as if it came from outside. `fence` leaves
execs no call of which that is true. Whatever runnerd starts must get an empty signal mask (`process.py`).

As a plain child (process backend) runnerd takes signals as anybody does, and becomes the parent of what its execs
leave behind.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from sandreel_core.errors import Unavailable
from sandreel_core.log import Log

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Wakes our own reading thread at the end; blocked like the others.
_WAKE = signal.SIGUSR2
# What kill(2) and the kernel itself say in `si_code` (sigaction(2)); nobody else can say it of a signal to another.
_TRUE_CODES = (0, 0x80)
_PR_SET_DUMPABLE = 4  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36


def is_init() -> bool:
    return os.getpid() == 1


def guard() -> None:
    """Close this process's memory, environment and descriptors to others of the same user. Before anything secret
    is read. Raises OSError."""
    _prctl(_PR_SET_DUMPABLE, 0)


def block() -> None:
    """As PID 1: block the ending signals. Called in the main thread before any other thread exists, for
    threads inherit the mask."""
    if is_init():
        signal.pthread_sigmask(signal.SIG_BLOCK, (*ENDING, _WAKE))


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


class Init:
    """PID 1's duties, or a plain child's, while the context is open.

    reap  called in the event loop after children ended: removes the zombies that nobody owns
    end   called in the event loop when somebody outside asks for the end
    """

    def __init__(self, *, reap: Callable[[], object], end: Callable[[], None], log: Log) -> None:
        self._reap = reap
        self._end = end
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._init = is_init()
        self._before: dict[signal.Signals, Any] = {}
        self._closing = threading.Event()
        self._ignored = 0
        self._tell_at = 1
        self._reader = threading.Thread(target=self._read, name="signals", daemon=True)

    def __enter__(self) -> Init:
        """Raises Unavailable when there is no thread to be had."""
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        # asyncio is woken by a byte for every signal. When an exec leaves thousands of orphans its buffer is full, which
        # CPython tells on standard error each time: an agent must not fill the log. A wake-up more is not needed then.
        signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
        if self._init:
            try:
                self._reader.start()
            except RuntimeError as error:
                raise Unavailable("no thread is to be had: is a limit of processes met?") from error
        else:
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
            for number in ENDING:
                self._before[number] = signal.signal(number, self._ending)
        self._reap()  # what ended before anybody listened
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        self._loop.remove_signal_handler(signal.SIGCHLD)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._reader.ident is not None:
            os.kill(os.getpid(), _WAKE)  # no pthread_kill: the fence leaves that to nobody
            self._reader.join()

    def _ending(self, number: int, frame: FrameType | None) -> None:
        """Not by add_signal_handler(): the byte that tells asyncio which signal it was is lost in a full buffer."""
        self._loop.call_soon_threadsafe(self._end)

    def _read(self) -> None:
        """In a thread of its own: waits in the kernel, costs nothing."""
        while not self._closing.is_set():
            try:
                info = signal.sigwaitinfo((*ENDING, _WAKE))
            except InterruptedError:
                continue
            if info.si_signo == _WAKE:
                continue
            name = signal.Signals(info.si_signo).name
            if info.si_pid != 0 or info.si_code not in _TRUE_CODES:
                self._ignore(name, info)
                continue
            self._log.info("signal from outside", signal=name)
            try:
                self._loop.call_soon_threadsafe(self._end)
            except RuntimeError:
                return  # the loop is closed: the end is under way

    def _ignore(self, name: str, info: signal.struct_siginfo) -> None:
        """Told for the 1st, the 10th, the 100th …: an agent that sends them in a loop must not fill the log."""
        self._ignored += 1
        if self._ignored == self._tell_at:
            self._tell_at *= 10
            self._log.warning(
                "signal from inside ignored", signal=name, pid=info.si_pid, code=info.si_code, count=self._ignored
            )
