"""Processes as /proc shows them: start times, and who carries a boot's marker. Blocking; called in a thread."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def kernel_boot() -> str:
    """The id of the machine's own boot: a pid and a start time mean nothing after another one."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Clock ticks between the machine's start and the process's (`man 5 proc_pid_stat`, field 22).

    None when there is no such process, or only its zombie: with the pid it names one process for ever.
    """
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in field 2 may hold spaces and parentheses; the last one ends it.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X", b"x") else int(fields[19])


def carriers(name: str, value: str) -> Iterator[tuple[int, int]]:
    """(pid, start time) of every process but this one whose environment has `name=value`."""
    wanted = f"{name}={value}".encode()
    own = os.getpid()
    with os.scandir(PROC) as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdecimal()]
    for pid in pids:
        if pid == own:
            continue
        started = start_time(pid)
        if started is None:
            continue
        try:
            environment = (PROC / str(pid) / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # gone, or another user's: nothing of ours, as sessions have the spawner's user or one below it
        if wanted in environment.split(b"\0"):
            yield pid, started


def send(pid: int, started: int, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; whether it was there. The pidfd closes the race with a reused pid."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if start_time(pid) != started:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True
