"""How often the kernel has killed something in this cgroup for lack of memory. Blocks for the
60 µs that a few files in memory take."""

from __future__ import annotations

from pathlib import Path


def oom_kills(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The cgroup's `oom_kill` counter (v2 `memory.events`, v1 `memory.oom_control`), None where none is readable."""
    try:
        groups = proc.read_text().splitlines()
    except OSError:
        return None
    for group in groups:
        _, _, rest = group.partition(":")
        controllers, _, path = rest.partition(":")
        inside = path.lstrip("/")
        if controllers == "":
            # Inside a cgroup namespace the path is `/`; without one it is the host's and may not be visible.
            candidates = [root / inside / "memory.events", root / "memory.events"]
        elif "memory" in controllers.split(","):
            candidates = [root / "memory" / inside / "memory.oom_control", root / "memory" / "memory.oom_control"]
        else:
            continue
        for candidate in candidates:
            count = _counter(candidate)
            if count is not None:
                return count
    return None


def _counter(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.isdigit():
            return int(value)
    return None
