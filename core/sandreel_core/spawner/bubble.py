"""The sandbox of a process session: bubblewrap's arguments, and whether it works here.

It separates what sessions see of each other and of the data; it limits neither memory nor the network, and
says so (`fence` is none).
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

INSIDE = "/workspace"
_TMP = "/tmp"  # noqa: S108 - the session's own
_OWN = ("proc", "dev", "tmp", "workspace", "sys", "lost+found")
PROBE_TIMEOUT_S = 10


def works() -> str | None:
    """None when bubblewrap can be used here, else why not, in a few words. Blocking."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return "bwrap is not installed"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "setpriv is not installed"
    probe = [bwrap, "--ro-bind", "/", "/", "--unshare-pid", "--as-pid-1", "--proc", "/proc", "--dev", "/dev"]
    try:
        done = subprocess.run([*probe, "true"], capture_output=True, timeout=PROBE_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap cannot be run: {error}"
    return None if done.returncode == 0 else done.stderr.decode(errors="replace").strip()[:200] or "bwrap failed"


def needs(program: Iterable[str]) -> list[Path]:
    """Every path that the interpreter, its packages and the program are read from."""
    found = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, os.path.realpath(sys.executable)}
    found.update(path for path in sys.path if path and Path(path).exists())
    found.update(part for part in program if part.startswith("/") and Path(part).exists())
    paths = sorted({Path(part) for part in found} | {Path(os.path.realpath(part)) for part in found})
    return [path for path in paths if not any(other in path.parents for other in paths)]


def closed_to(path: Path, uid: int, gid: int) -> Path | None:
    """The topmost directory above `path` that a user may not enter, or None."""
    for parent in reversed(path.parents):
        found = parent.stat()
        bit = stat.S_IXUSR if found.st_uid == uid else stat.S_IXGRP if found.st_gid == gid else stat.S_IXOTH
        if not found.st_mode & bit:
            return parent
    return None


def arguments(
    *, workspace: Path, hidden: Iterable[Path], program: list[str], user: tuple[int, int] | None, tmp_bytes: int
) -> list[str]:
    """The command line that runs `program` as process 1 of its own pid namespace. Reads directories; blocking.

    The root is read only, `/tmp` is in memory, `hidden` directories are empty, and `user` (uid, gid), when
    given, is who it runs as. There is no --die-with-parent: runnerd outlives the spawner.
    """
    paths = needs(program)
    masked = {path.resolve() for path in hidden if path.exists()}  # an empty directory over a link would hide nothing
    if user is not None:
        masked |= {closed for path in paths if (closed := closed_to(path, *user)) is not None}
    masked = {path for path in masked if not any(other in path.parents for other in (*masked, Path(_TMP)))}
    line = ["bwrap", "--unshare-pid", "--unshare-ipc", "--as-pid-1"]
    with os.scandir("/") as entries:
        for entry in sorted(entries, key=lambda found: found.name):
            if entry.name in _OWN or Path(entry.path) in masked:
                continue
            if entry.is_symlink():
                line += ["--symlink", str(Path(entry.path).readlink()), entry.path]
            elif entry.is_dir():
                line += ["--ro-bind", entry.path, entry.path]
    line += ["--proc", "/proc", "--dev", "/dev", "--size", str(tmp_bytes), "--perms", "1777", "--tmpfs", _TMP]
    for mask in sorted(masked):
        line += ["--tmpfs", str(mask)]
    for path in paths:
        if any(mask in path.parents for mask in (*masked, Path(_TMP))):
            # bwrap makes missing parents for root alone; made by name, everybody may enter them.
            line += [
                part for parent in reversed(path.parents) if _below(parent, masked) for part in ("--dir", str(parent))
            ]
            line += ["--ro-bind", str(path), str(path)]
    line += ["--dir", INSIDE, "--bind", str(workspace), INSIDE, "--remount-ro", "/", "--chdir", INSIDE, "--"]
    if user is not None:
        line += ["setpriv", f"--reuid={user[0]}", f"--regid={user[1]}", "--clear-groups"]
    return [*line, *program]


def _below(path: Path, masked: set[Path]) -> bool:
    return any(mask in path.parents for mask in (*masked, Path(_TMP)))
