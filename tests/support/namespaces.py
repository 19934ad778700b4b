"""Running a program as PID 1 of a PID namespace of its own, where the machine can."""

from __future__ import annotations

import functools
import shutil
import subprocess
import time
from pathlib import Path

import pytest


@functools.cache
def as_pid_1() -> tuple[str, ...] | None:
    """The words that make what follows them PID 1, or None where neither bubblewrap nor unshare may do it."""
    candidates = (
        ("bwrap", "--die-with-parent", "--unshare-pid", "--as-pid-1", "--dev-bind", "/", "/", "--proc", "/proc", "--"),
        ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--"),
    )
    for words in candidates:
        if shutil.which(words[0]) is None:
            continue
        if subprocess.run([*words, "true"], capture_output=True, timeout=30).returncode == 0:
            return words
    return None


needs_pid_namespace = pytest.mark.skipif(
    as_pid_1() is None, reason="neither bwrap nor unshare can make a PID namespace here"
)


def pid_1_of(ancestor: int, within_s: float = 10) -> int:
    """The pid, as seen from here, of the namespace's PID 1."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        pending = [ancestor]
        while pending:
            pid = pending.pop()
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                pending += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            except OSError:
                continue
            pids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
            if len(pids) > 1 and pids[-1] == "1":
                return pid
        time.sleep(0.01)
    raise TimeoutError("no PID 1 was found")
