"""What a process has in its memory, for whoever looks for something that should not be there. Needs root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_MAX_REGION_BYTES = 512 << 20


def writable(pid: int, seen: set[tuple[str, str, str]]) -> Iterator[bytes]:
    """Every region that it can write. `seen`: those that are shared are read once. Raises OSError when it may not be read, or
    is gone."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            addresses, rights, offset, device, inode = line.split()[:5]
            start, end = (int(each, 16) for each in addresses.split("-"))
            if not rights.startswith("rw") or end - start > _MAX_REGION_BYTES:
                continue
            if rights[3] == "s":
                if (device, inode, offset) in seen:
                    continue
                seen.add((device, inode, offset))
            with contextlib.suppress(OSError):  # pages that nobody can read: the kernel's own, or gone meanwhile
                yield os.pread(memory.fileno(), end - start, start)


def holds(pid: int, needle: bytes, seen: set[tuple[str, str, str]]) -> bool:
    """Of a process that is gone: no."""
    try:
        return any(needle in region for region in writable(pid, seen))
    except (FileNotFoundError, ProcessLookupError):
        return False


def below(pid: int) -> list[int]:
    """The process and all that came of it and is there still."""
    found = [pid]
    for at in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{at}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found
