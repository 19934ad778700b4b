"""What Postgres' own processes are doing, out of postmaster.pid and /proc; and how they are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

STOP_S = 20.0
POLL_S = 0.01


def status(cluster: Path, pid: int) -> str:
    """The eighth line of postmaster.pid: `starting`, `ready`, `stopping`. Empty for another's, or none."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except OSError:
        return ""
    return lines[7].strip() if len(lines) > 7 and lines[0] == str(pid) else ""


def pid_on_file(cluster: Path) -> int:
    try:
        first = (cluster / "postmaster.pid").read_text().split("\n", 1)[0]
    except OSError:
        return 0
    return int(first) if first.isdecimal() else 0


def left_running(cluster: Path) -> int:
    """The pid of a postmaster that runs on the cluster; 0 when the number on file is nobody's, or a stranger's, by now."""
    pid = pid_on_file(cluster)
    return pid if pid and alive(pid) and str(cluster).encode() in command_line(pid) else 0


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def end(pid: int, process: subprocess.Popen[bytes] | None) -> None:
    """Fast shutdown (SIGINT), then SIGKILL to all of it. `process` where it is our own child, to be reaped."""
    below = children(pid)
    send(pid, signal.SIGINT)
    if not (_reaped(process) if process else wait_gone([pid], STOP_S)):
        below = children(pid)
        for each in (pid, *below):
            send(each, signal.SIGKILL)
        if process:
            process.wait()
    wait_gone([pid, *below], STOP_S)


def _reaped(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def wait_gone(pids: list[int], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def alive(pid: int) -> bool:
    """A zombie is not alive: a leftover's parent may be one that reaps nothing."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in (b"Z", b"X")
