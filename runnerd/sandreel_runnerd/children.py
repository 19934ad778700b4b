"""Which processes runnerd owns, how it hears of their exit, and who reaps whom.

Its own children are heard of through a pidfd and stay unreaped until `Child.collect`: while the zombie is there,
its pid (and so the number of its process group) cannot be given to anybody else, and a late SIGKILL cannot hit a
stranger. As PID 1 runnerd also inherits strangers: `Children.reap` removes those, and only those.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

POLL_S = 0.02


class Ending(Struct, frozen=True, kw_only=True):
    """How a process ended, as the kernel told it. Both null: somebody else took the status."""

    exit_code: int | None = None
    signal: str | None = None
    cpu_ms: int | None = None
    max_rss_bytes: int | None = None


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


class Child:
    """One process that runnerd started. `released`: its pid may belong to somebody else by now."""

    def __init__(self, pid: int, owned: set[int], pidfd: int | None) -> None:
        self.pid = pid
        self._owned = owned
        self._pidfd = pidfd
        self._ending: Ending | None = None
        self.released = False

    def ended(self) -> bool:
        """Whether it has exited (its zombie may still be there)."""
        if self._ending is not None:
            return True
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    async def wait(self) -> None:
        """Until it has exited. Only one task may wait."""
        if self._pidfd is None:
            while not self.ended():  # noqa: ASYNC110 - no pidfd: nothing but time to wait for
                await asyncio.sleep(POLL_S)
            return
        loop = asyncio.get_running_loop()
        exited = loop.create_future()

        def hear() -> None:
            if not exited.done():
                exited.set_result(None)

        loop.add_reader(self._pidfd, hear)
        try:
            await exited
        finally:
            loop.remove_reader(self._pidfd)

    async def collect(self) -> Ending:
        """Reap it; call it after `wait`. From here on its pid may belong to somebody else. The kernel keeps a zombie
        from its parent for as long as somebody traces it (ptrace(2)), so this may wait, but never blocks."""
        while self._ending is None and not self._reap():  # noqa: ASYNC110 - nothing tells when a tracer lets go
            await asyncio.sleep(POLL_S)
        return self._ending or Ending()

    def abandon(self) -> None:
        """Give it up without waiting: reaped if it has exited, else left to whoever reaps strangers."""
        if self._ending is None and not self._reap():
            self._release()

    def _reap(self) -> bool:
        """Whether it is done."""
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:
            self._ending = Ending()
        else:
            if not pid:
                return False
            self._ending = _ending(status, usage)
        self._release()
        return True

    def _release(self) -> None:
        self.released = True
        self._owned.discard(self.pid)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def _ending(status: int, usage: resource.struct_rusage) -> Ending:
    code = os.waitstatus_to_exitcode(status)
    return Ending(
        exit_code=code if code >= 0 else None,
        signal=signal_name(-code) if code < 0 else None,
        cpu_ms=round((usage.ru_utime + usage.ru_stime) * 1000),
        max_rss_bytes=usage.ru_maxrss * 1024,  # Linux counts KiB (getrusage(2))
    )


class Children:
    """Every process that runnerd owns. One per runnerd, used from its event loop."""

    def __init__(self, open_pidfd: Callable[[int], int] = os.pidfd_open) -> None:
        self._open_pidfd = open_pidfd
        self._owned: set[int] = set()

    def owns(self, pid: int) -> bool:
        return pid in self._owned

    def start(self, start: Callable[[], int]) -> Child:
        """Run `start` and own what it started, a direct child by its pid. Raises what `start` raises (OSError,
        ValueError). Nothing is reaped in between, so the new pid cannot be taken for a stranger's."""
        return self._adopt(start())

    def reap(self) -> int:
        """Remove the zombies that nobody owns; how many. For PID 1 and subreapers, on every SIGCHLD."""
        reaped = 0
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return reaped
            if found is None:
                return reaped
            if found.si_pid in self._owned:
                # An own zombie that is kept hides the others behind it: go by the list.
                return reaped + sum(self._reap_stranger(pid) for pid in child_pids())
            reaped += self._reap_stranger(found.si_pid)

    def _reap_stranger(self, pid: int) -> int:
        if pid in self._owned:
            return 0
        try:
            return 1 if os.waitpid(pid, os.WNOHANG)[0] else 0
        except ChildProcessError:
            return 0

    def _adopt(self, pid: int) -> Child:
        self._owned.add(pid)
        try:
            pidfd: int | None = self._open_pidfd(pid)
        except OSError:
            # gVisor and old kernels have none; out of descriptors or memory it must still be heard of: it runs.
            pidfd = None
        return Child(pid, self._owned, pidfd)


def child_pids() -> list[int]:
    """The direct children of this process, by the kernel's list (CONFIG_PROC_CHILDREN) or by looking at all."""
    pids: list[int] = []
    try:
        for task in Path("/proc/self/task").iterdir():
            pids += map(int, (task / "children").read_text().split())
    except FileNotFoundError:
        me = os.getpid()
        pids = [pid for pid in all_pids() if parent_of(pid) == me]
    return pids


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names are all that is wanted


def parent_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat[stat.rindex(b")") + 2 :].split()[1])
