"""A file that arrives on this machine: under its name only when it is whole, and with no trace when it never is."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from sandreel_core.errors import Misconfigured

# A file system that cannot make a file without a name says one of these; overlayfs before Linux 6.1 does.
_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


class Landing:
    """Bytes on their way to `path`. A file without a name holds them, where the file system has such: then also SIGKILL
    leaves nothing. Blocking. Everything raises Misconfigured, with the path and what the kernel said."""

    def __init__(self, path: Path) -> None:
        """The directories above it are made."""
        # Where a link leads, as every program that writes does.
        self._path = path = Path(os.path.realpath(path))
        # Its name for a moment before it gets its own; all along, where there are no files without a name.
        self._draft = path.with_name(f".{path.name[:200]}.sandreel-{secrets.token_hex(6)}")
        self._named = False
        try:
            if path.exists() and not path.is_file():
                raise Misconfigured(f"{str(path)!r} is there and is no regular file")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = self._open()
        except OSError as error:
            raise self._problem(error) from error

    def _open(self) -> int:
        try:
            return os.open(self._path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in _NO_UNNAMED:
                raise
        fd = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._named = True
        return fd

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise self._problem(error) from error

    def publish(self, mode: int) -> None:
        """In place of what bears the name, with these permissions as far as the umask lets them: no others, whatever a session says."""
        try:
            os.fchmod(self._fd, mode & 0o777 & ~_umask())
            os.fsync(self._fd)
            if not self._named:
                self._link()
            self._draft.replace(self._path)
            self._named = False
        except OSError as error:
            raise self._problem(error) from error

    def _link(self) -> None:
        """An unnamed file is linked through /proc (open(2), O_TMPFILE). A link cannot replace, a rename can."""
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # With a directory Python calls linkat, which follows /proc's link; without one link, which does not.
            os.link(f"/proc/self/fd/{self._fd}", self._draft.name, dst_dir_fd=directory, follow_symlinks=True)
        finally:
            os.close(directory)
        self._named = True

    def close(self) -> None:
        """Leave nothing behind of what was not published. Any number of times."""
        if self._fd < 0:
            return
        if self._named:
            with contextlib.suppress(OSError):
                self._draft.unlink()
        os.close(self._fd)
        self._fd = -1

    def _problem(self, error: OSError) -> Misconfigured:
        return Misconfigured(f"{str(self._path)!r} cannot be written: {os.strerror(error.errno or errno.EIO)}")


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
