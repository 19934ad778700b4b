"""A piece of a file that is read, pinned to the state in which its first bytes were. Blocking; called in a thread."""

from __future__ import annotations

import base64
import hashlib
import os
import stat

from sandreel_core.contract.files import FILE_CHUNK_BYTES, MAX_COPY_BYTES, MAX_READ_BYTES, FileChunk, ReadFile
from sandreel_core.errors import Refused


def chunk(fd: int, request: ReadFile) -> FileChunk:
    """Raises Refused (NOT_A_FILE, TOO_LARGE, CHANGED), OSError."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise Refused("NOT_A_FILE", f"{request.path[:200]!r} is not a regular file")
    size = status.st_size
    limit = MAX_READ_BYTES if request.pin is None else MAX_COPY_BYTES
    if size > limit:
        raise Refused("TOO_LARGE", f"{request.path[:200]!r} has {size} bytes; at most {limit} can be read")
    if request.pin and request.pin != _pin(status):
        raise Refused("CHANGED", f"{request.path[:200]!r} has changed since its first bytes were read")
    data = os.pread(fd, request.length, request.offset)
    eof = request.offset + len(data) >= size
    whole = eof and (request.pin is None or request.offset == 0)
    sha256 = _digest(fd, size) if request.sha256 or whole else None
    pin = None if request.pin is None else _pin(status)
    if pin is not None and pin != _pin(os.fstat(fd)):
        raise Refused("CHANGED", f"{request.path[:200]!r} changes while it is read")
    body = base64.b64encode(data).decode()
    return FileChunk(base64=body, size=size, eof=eof, sha256=sha256, pin=pin, mode=status.st_mode & 0o777)


def _pin(status: os.stat_result) -> str:
    """Which state of which file this is, as far as the kernel tells. Its clock ticks every few milliseconds: what is
    written in between shows in the digest."""
    return f"{status.st_dev}.{status.st_ino}.{status.st_size}.{status.st_mtime_ns}.{status.st_ctime_ns}"


def _digest(fd: int, size: int) -> str:
    digest = hashlib.sha256()
    offset = 0
    while offset < size:
        data = os.pread(fd, min(FILE_CHUNK_BYTES, size - offset), offset)
        if not data:
            break
        digest.update(data)
        offset += len(data)
    return digest.hexdigest()
