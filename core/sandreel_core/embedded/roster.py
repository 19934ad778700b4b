"""The parts of a stack and how each is, as `sandreel up` writes it down: for whoever looks from another process.

A part that is down cannot say why; the one who keeps it alive can. Blocking: a file of some hundred bytes.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
from msgspec import Struct

from sandreel_core.embedded.part import State, Status

# Of a detail, which may end in what a server or a container said last.
MAX_DETAIL_CHARACTERS = 500


class Entry(Struct, frozen=True, kw_only=True):
    """`detail`: where a part that is ready listens, else why it is not. `pid`: of a container's main process, as its
    host sees it. `since_ms` is Unix time."""

    state: State
    since_ms: int
    pid: int | None = None
    detail: str = ""


class Roster:
    """Of the stack that runs on a data directory. Methods raise OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Entry] = {}

    def begin(self) -> None:
        """Forget the parts of the stack before us."""
        self._entries = {}
        self._write()

    def note(self, status: Status) -> None:
        detail = " ".join(status.detail.split())[:MAX_DETAIL_CHARACTERS]
        before = self._entries.get(status.part)
        if status.state == "starting" and before is not None and before.state in ("died", "starting"):
            detail = before.detail  # what keeps on failing says why all the time, not only between two attempts
        entry = Entry(state=status.state, since_ms=time.time_ns() // 1_000_000, pid=status.pid, detail=detail)
        self._entries[status.part] = entry
        self._write()

    def _write(self) -> None:
        whole = self._path.with_suffix(".new")
        whole.write_bytes(msgspec.json.encode(self._entries))
        whole.replace(self._path)


def read(path: Path) -> dict[str, Entry]:
    """By part, in the order in which they were first heard of; empty where nothing can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Entry])
    except (OSError, msgspec.DecodeError):
        return {}


def why_down(entry: Entry) -> str:
    """One sentence about a part that is not ready."""
    match entry.state:
        case "starting":
            return f"it is being started{f' again: {entry.detail}' if entry.detail else ''}"
        case "died":
            return f"{entry.detail or 'it ended'}; it is started again"
        case "held":
            return "it is kept down"
        case _:
            return entry.detail or "it is stopped"
