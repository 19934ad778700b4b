"""A file on its way into the workspace: nobody sees it under its name before it is whole.

Blocking; called in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets

from sandreel_core.errors import Refused
from sandreel_runnerd.root import Place, refusal

# A file system that cannot make a file without a name says one of these; overlayfs before Linux 6.1 does.
_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


class Upload:
    """Bytes that are gathered in a file without a name (where the file system has such) beside its place.

    The agent, which runs as the same user, can then neither see nor change what has arrived; the digest is
    taken of what arrived. One caller at a time.
    """

    def __init__(self, place: Place, *, mode: int, max_bytes: int) -> None:
        """Raises Refused (NO_SPACE, NOT_PERMITTED, FILE_ERROR)."""
        self.path = place.path
        self.size = 0
        self._name = place.name
        self.mode = mode
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place.fd)
        # Its name until it is whole; used at once only where there are no files without a name.
        self._temporary = f".sandreel-upload-{secrets.token_hex(8)}"
        self._named = False
        try:
            self._fd = self._open()
        except OSError as error:
            os.close(self._directory)
            raise refusal(self.path, error) from error

    def _open(self) -> int:
        try:
            return os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=self._directory)
        except OSError as error:
            if error.errno not in _NO_UNNAMED:
                raise
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._temporary, flags, 0o600, dir_fd=self._directory)
        self._named = True
        return fd

    def append(self, data: bytes) -> None:
        """Raises Refused (TOO_LARGE, NO_SPACE, FILE_ERROR): the upload is then to be aborted."""
        if self.size + len(data) > self._max_bytes:
            raise Refused("TOO_LARGE", f"the file is larger than {self._max_bytes} bytes")
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise refusal(self.path, error) from error
        self._digest.update(data)
        self.size += len(data)

    def finish(self, sha256: str | None) -> str:
        """Give it its name, in place of what bore it, and return its digest. Ends the upload either way.

        Raises Refused: CHECKSUM when `sha256` is given and another, NOT_A_FILE when a directory bears the name.
        """
        digest = self._digest.hexdigest()
        try:
            if sha256 is not None and sha256.lower() != digest:
                raise Refused("CHECKSUM", f"the {self.size} bytes that arrived have the SHA-256 {digest}")
            self._publish()
        finally:
            self.abort()
        return digest

    def _publish(self) -> None:
        try:
            os.fchmod(self._fd, self.mode)
            if not self._named:
                # An unnamed file is linked through /proc (open(2), O_TMPFILE); a link cannot replace, a rename can.
                source = f"/proc/self/fd/{self._fd}"
                os.link(source, self._temporary, dst_dir_fd=self._directory, follow_symlinks=True)
                self._named = True
            os.rename(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError as error:
            if error.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST):
                raise Refused("NOT_A_FILE", f"{self.path!r} is a directory") from error
            raise refusal(self.path, error) from error
        self._named = False

    def abort(self) -> None:
        """Leave nothing behind. Any number of times."""
        if self._fd < 0:
            return
        if self._named:
            with contextlib.suppress(OSError):  # its directory is gone, and it with it
                os.unlink(self._temporary, dir_fd=self._directory)
        os.close(self._fd)
        os.close(self._directory)
        self._fd = -1
