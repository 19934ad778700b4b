"""Who is at the other end of a socket: the exec that a process belongs to, by the marker in its environment. Blocking.

All processes of a session run as one user, so what is found is for the record, and is no proof: one that wants to pass for
another's can. The fence is around the session, and its grants are what counts.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from msgspec import Struct

from sandreel_core.contract.boot import BOOT_MARKER, EXEC_MARKER

_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7)
MAX_PROGRAM_CHARS = 256
# Of the processes above the one that asks: git, its transport and the shells between are four.
_MAX_ABOVE = 6
_MAX_ARGV_BYTES = 4096


class Peer(Struct, frozen=True, kw_only=True):
    """`program`: the argv[0] of the process and of those above it in its exec, nearest first; what is ours is named only where it is
    all that there is."""

    pid: int
    exec: str
    group: int
    program: str


def peer_pid(connection: socket.socket) -> int | None:
    """Whoever connected, if it runs as our own user; None for anybody else, and for one that another pid namespace hides."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid if pid > 0 and uid == os.geteuid() else None


def look(pid: int, boot_marker: str, *, own: str) -> Peer | None:
    """None when it is gone, or belongs to no exec of this boot. `own`: where our own programs are, of which what called
    them is named."""
    exec_id = _exec_of(pid, boot_marker)
    if exec_id is None:
        return None
    try:
        group = os.getpgid(pid)
    except OSError:
        return None
    names: list[str] = []
    at, ours = pid, ""
    for _ in range(_MAX_ABOVE):
        argv = _argv(at)
        at_own = next((place for place, word in enumerate(argv) if word.startswith(own)), None)
        if at_own is not None:
            ours = "gh" if argv[at_own + 1 : at_own + 2] == ["gh"] else "sandreel-credential"
        elif argv:
            names.append(os.path.basename(argv[0]) or argv[0])  # noqa: PTH119 - it may be no path
        above = _parent(at)
        if above is None or _exec_of(above, boot_marker) != exec_id:
            break
        at = above
    return Peer(pid=pid, exec=exec_id, group=group, program=_plain(" < ".join(names) or ours))


def _exec_of(pid: int, boot_marker: str) -> str | None:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    if f"{BOOT_MARKER}={boot_marker}".encode() not in environ:
        return None
    head = f"{EXEC_MARKER}=".encode()
    found = next((entry[len(head) :] for entry in environ if entry.startswith(head)), b"")
    return found.decode("utf-8", "replace") or None


def _argv(pid: int) -> list[str]:
    try:
        with Path(f"/proc/{pid}/cmdline").open("rb") as file:
            return file.read(_MAX_ARGV_BYTES).decode("utf-8", "replace").split("\0")[:-1]
    except OSError:
        return []


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        # The name in brackets may hold anything; what follows it is numbers.
        return int(stat[stat.rindex(b")") + 2 :].split()[1]) or None
    except (OSError, ValueError, IndexError):
        return None


def _plain(text: str) -> str:
    """What a program calls itself must not steer the terminal that shows it."""
    return "".join(each if each.isprintable() else "?" for each in text)[:MAX_PROGRAM_CHARS]
