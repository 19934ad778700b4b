"""Pid files that cannot point at a stranger: the pid and the time at which that process started (Linux)."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

# How often a process that is not our child is looked at: it cannot be waited for.
_POLL_S = 0.02


def started(pid: int) -> int | None:
    """When the process started, in clock ticks since the machine's boot; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name may hold spaces and parentheses
    return None if fields[0] in (b"Z", b"X") else int(fields[19])  # proc(5): field 22 of the line


def write(path: Path, pid: int) -> None:
    """Remember the process. A process that has ended already leaves no file."""
    ticks = started(pid)
    if ticks is not None:
        whole = path.with_suffix(".new")
        whole.write_text(f"{pid} {ticks}\n")
        whole.replace(path)


def alive(path: Path) -> int | None:
    """The pid in the file, if that very process still runs."""
    try:
        pid, ticks = (int(word) for word in path.read_text().split())
    except (OSError, ValueError):
        return None
    return pid if started(pid) == ticks else None


async def end(path: Path, *, grace_s: float) -> int | None:
    """End the process in the file, if it runs: SIGTERM, after `grace_s` SIGKILL. Its pid, None if there was none."""
    pid = alive(path)
    if pid is None:
        _forget(path)
        return None
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            break
        for _ in range(int(patience_s / _POLL_S)):
            if alive(path) is None:
                break
            await asyncio.sleep(_POLL_S)
        if alive(path) is None:
            break
    _forget(path)
    return pid


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)
