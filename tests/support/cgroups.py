"""A cgroup of a test's own, where this may be made."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# The limit of each kind: in a hierarchy of its own (version 1), and in the one that is shared (version 2).
_LIMITS = {"pids": ("pids.max", "pids.max"), "memory": ("memory.limit_in_bytes", "memory.max")}


@contextmanager
def cgroup(kind: str, limit: int) -> Iterator[Path | None]:
    """Its directory, or None. Processes move into it by its file `cgroup.procs`; at the end they are killed."""
    for root, file in zip((Path("/sys/fs/cgroup") / kind, Path("/sys/fs/cgroup")), _LIMITS[kind], strict=True):
        group = root / f"sandreel-test-{os.getpid()}"
        try:
            # A kernel that has no such hierarchy there makes a directory at best, with nothing in it.
            group.mkdir()
        except OSError:
            continue
        if (group / file).exists():
            (group / file).write_text(str(limit))
            try:
                yield group
            finally:
                _remove(group)
            return
        group.rmdir()
    yield None


def _remove(group: Path) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > until:
                raise
            for pid in (group / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.02)
        else:
            return
