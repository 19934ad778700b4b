"""What outlives an exec: found by its session, or by the marker in its environment, even after setsid.

A program that clears its environment and leaves its session escapes; the docs say so. Blocking: run it in a thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

from msgspec import Struct

from sandreel_core.contract.boot import BOOT_MARKER, EXEC_MARKER
from sandreel_runnerd.children import all_pids

KILL_WITHIN_S = 8.0
RESCAN_S = 0.01


class Marks(Struct, frozen=True, kw_only=True):
    """How the processes of one exec are known. `leader` must not have been reaped yet."""

    boot: str
    exec: str
    leader: int


def find(marks: Marks) -> list[int]:
    """The living processes of the exec, but its leader. Zombies do not count."""
    me = os.getpid()
    return [pid for pid in all_pids() if pid not in (me, marks.leader) and belongs(pid, marks)]


def count(marks: Marks) -> int:
    """How many there are. A search is no snapshot (one that forks and dies meanwhile, or is in the middle of an
    exec, goes unseen), so none is believed only after a second look."""
    return len(find(marks) or find(marks))


def find_group(leader: int) -> list[int]:
    """The living members of the leader's process group, but itself."""
    found = []
    for pid in all_pids():
        with contextlib.suppress(OSError):
            if pid != leader and os.getpgid(pid) == leader and is_alive(pid):
                found.append(pid)
    return found


def kill(marks: Marks, stop: threading.Event, within_s: float = KILL_WITHIN_S) -> int:
    """SIGKILL all of them until two searches find none, or until `stop` is set; how many there were. They are stopped
    first, so that a fork bomb does not outrun the search. The leader must stay unreaped until this has returned."""
    seen: set[int] = set()
    clean = 0
    until = time.monotonic() + within_s
    while clean < 2 and time.monotonic() < until and not stop.is_set():
        found = find(marks)
        clean = 0 if found else clean + 1
        seen.update(found)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(marks.leader, signal.SIGKILL)
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                _send(pid, number, marks)
        time.sleep(RESCAN_S)
    return len(seen)


def belongs(pid: int, marks: Marks) -> bool:
    try:
        if os.getsid(pid) == marks.leader:
            return is_alive(pid)
        environ = b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    exec_mark = f"\0{EXEC_MARKER}={marks.exec}\0".encode()
    return exec_mark in environ and f"\0{BOOT_MARKER}={marks.boot}\0".encode() in environ


def is_alive(pid: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat[stat.rindex(b")") + 2 : stat.rindex(b")") + 3] not in (b"Z", b"X")


def _send(pid: int, number: signal.Signals, marks: Marks) -> None:
    # The pidfd pins the process; looking again after opening it rules out that the number was given away.
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if belongs(pid, marks):
            signal.pidfd_send_signal(pidfd, number)
    except OSError:
        return
    finally:
        os.close(pidfd)
