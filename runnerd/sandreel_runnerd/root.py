"""The workspace's directory, and the one way in: no path and no symbolic link leads out of it.

Every component is opened from the descriptor of the directory before it, without following links; a link is
read from its own descriptor and its components are walked the same way; `..` goes back to the descriptor
that we came from. So there is no moment between a check and a use in which the agent could swap one for a link.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from sandreel_core.errors import NotFound, Refused

_MAX_LINKS = 40  # as Linux, path_resolution(7)
_MAX_DEPTH = 128  # one descriptor is held for each level
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Place(NamedTuple):
    """An entry that need not exist: `name` (one component) in the open directory `fd`; `path` is relative
    to the workspace."""

    fd: int
    name: str
    path: str


class Root:
    """The workspace. Raises OSError on construction when there is no such directory."""

    def __init__(self, path: str) -> None:
        self.path = str(Path(path).resolve(strict=True))
        self._fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._fd)

    @contextmanager
    def directory(self, path: str) -> Generator[tuple[int, str], None, None]:
        """An open directory (for `*at` calls) and its path relative to the workspace (`.` for itself).
        Raises NotFound, or Refused (UNSAFE_PATH, NOT_A_DIRECTORY)."""
        with self._walk(path, create=False, follow=True) as (fds, names, last):
            if last:
                try:
                    os.stat(last, dir_fd=fds[-1], follow_symlinks=False)
                except OSError as error:
                    raise _explained(path, error) from error
                raise Refused("NOT_A_DIRECTORY", f"{_shown(path)} is not a directory")
            yield fds[-1], "/".join(names) or "."

    @contextmanager
    def place(self, path: str, *, create: bool = False, follow: bool = False) -> Generator[Place, None, None]:
        """Where the path's last component is, or would be.

        create  make the directories above it
        follow  if the last component is a link, go where it leads (for reading); else the link itself is meant
        Raises NotFound, or Refused (UNSAFE_PATH, NOT_A_DIRECTORY, NOT_A_FILE for the workspace itself).
        """
        with self._walk(path, create=create, follow=follow) as (fds, names, last):
            if not last:
                if not names:
                    raise Refused("NOT_A_FILE", f"{_shown(path)} is the workspace itself")
                # A directory, walked into: name it from the one above.
                yield Place(fds[-2], names[-1], "/".join(names))
            else:
                yield Place(fds[-1], last, "/".join((*names, last)))

    @contextmanager
    def _walk(
        self, path: str, *, create: bool, follow: bool
    ) -> Generator[tuple[list[int], list[str], str], None, None]:
        """The open directories from the workspace down, their names, and the last component if it is none."""
        fds = [os.dup(self._fd)]
        names: list[str] = []
        try:
            try:
                last = self._descend(path, fds, names, create=create, follow=follow)
            except OSError as error:
                raise _explained(path, error) from error
            yield fds, names, last
        finally:
            for fd in fds:
                os.close(fd)

    def _descend(self, path: str, fds: list[int], names: list[str], *, create: bool, follow: bool) -> str:
        parts = deque(self._parts(path, path))
        links = 0
        while parts:
            part = parts.popleft()
            if part == "..":
                if not names:
                    raise Refused("UNSAFE_PATH", f"{_shown(path)} leads out of the workspace")
                names.pop()
                os.close(fds.pop())
                continue
            if not parts and not follow:
                return part
            if len(fds) > _MAX_DEPTH:
                raise Refused("UNSAFE_PATH", f"{_shown(path)} is more than {_MAX_DEPTH} directories deep")
            fd = self._open(part, fds[-1], create=create, last=not parts)
            if fd is None:
                return part
            mode = os.fstat(fd).st_mode
            if stat.S_ISDIR(mode):
                fds.append(fd)
                names.append(part)
                continue
            try:
                if not stat.S_ISLNK(mode):
                    if parts:
                        raise Refused("NOT_A_DIRECTORY", f"{part!r} in {_shown(path)} is not a directory")
                    return part
                target = os.readlink("", dir_fd=fd)
            finally:
                os.close(fd)
            links += 1
            if links > _MAX_LINKS:
                raise Refused("UNSAFE_PATH", f"{_shown(path)} goes through more than {_MAX_LINKS} links")
            if target.startswith("/"):
                while names:
                    names.pop()
                    os.close(fds.pop())
            parts.extendleft(reversed(self._parts(target, path)))
        return ""

    def _open(self, part: str, parent: int, *, create: bool, last: bool) -> int | None:
        """None: the last component does not exist."""
        try:
            return os.open(part, _PATH, dir_fd=parent)
        except FileNotFoundError:
            if last:
                return None
            if not create:
                raise
        with suppress(FileExistsError):  # somebody else made it, whatever it is: the open below says
            os.mkdir(part, 0o755, dir_fd=parent)
        return os.open(part, _PATH, dir_fd=parent)

    def _parts(self, text: str, asked: str) -> list[str]:
        """The components below the workspace; an absolute text must begin with the workspace's path."""
        if "\0" in text:
            raise Refused("UNSAFE_PATH", "a path holds a NUL byte")
        if text.startswith("/"):
            inside = text == self.path or text.startswith(self.path.rstrip("/") + "/")
            if not inside:
                raise Refused("UNSAFE_PATH", f"{_shown(asked)} leads out of the workspace")
            text = text[len(self.path) :]
        return [part for part in text.split("/") if part not in ("", ".")]


def _explained(path: str, error: OSError) -> NotFound | Refused:
    if error.errno == errno.ENOENT:
        return NotFound(f"there is no {_shown(path)} in the workspace")
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        return Refused("NOT_A_DIRECTORY", f"{_shown(path)} goes through something that is no directory")
    return refusal(path, error)


def refusal(path: str, error: OSError) -> Refused:
    """What the kernel would not do, as an answer: NO_SPACE, NOT_PERMITTED or FILE_ERROR."""
    code = {
        errno.ENOSPC: "NO_SPACE",
        errno.EDQUOT: "NO_SPACE",
        errno.EACCES: "NOT_PERMITTED",
        errno.EPERM: "NOT_PERMITTED",
        errno.EROFS: "NOT_PERMITTED",
    }.get(error.errno or 0, "FILE_ERROR")
    return Refused(code, f"{_shown(path)}: {os.strerror(error.errno) if error.errno else 'input/output error'}")


def _shown(path: str) -> str:
    return repr(path if len(path) <= 200 else path[:200] + "…")
