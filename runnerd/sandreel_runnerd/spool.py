"""What the bus cannot take now: a ring of records in one unlinked file, reserved at boot (design §5).

The file has no name, so that the agent, which runs as the same user, can neither read nor change it; its blocks
are reserved, so that a full disk cannot crowd it out. It does not outlive runnerd. All its IO runs in order in one
thread, which exists before the first exec.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import tempfile
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from struct import Struct
from typing import NamedTuple, TypeVar

from sandreel_core.errors import Unavailable

T = TypeVar("T")
_HEADER = Struct("<IQI")  # whose it is, its ordinal, the length of its body
MAX_TAKE_BYTES = 1024 * 1024
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


class Unwritable(Unavailable):
    """The directory takes no file of ours, however much room there is."""


class NoRoom(Unavailable):
    """There is no space for the file."""


class Record(NamedTuple):
    """`owner`: a number that the caller gave to the exec; `n`: the ordinal that the body was written with."""

    owner: int
    n: int
    body: bytes


class Spool:
    """First in, first out. Positions count bytes ever written; modulo the capacity they are places in the file."""

    def __init__(self, file: int, capacity_bytes: int, thread: ThreadPoolExecutor) -> None:
        self.capacity_bytes = capacity_bytes
        self._file = file
        self._thread = thread
        self._head = 0
        self._tail = 0
        self._readable = 0  # up to here records are written
        self._broken = False

    @property
    def used_bytes(self) -> int:
        return self._tail - self._head

    def fits(self, body: bytes) -> bool:
        return not self._broken and self.used_bytes + _HEADER.size + len(body) <= self.capacity_bytes

    async def append(self, record: Record) -> None:
        """Keep one record. Its place is taken at once (call order is the order), the writing is waited for.
        Call only if it `fits`. Raises Unavailable when the file cannot be written: nothing `fits` from then on."""
        data = _HEADER.pack(record.owner, record.n, len(record.body)) + record.body
        start, self._tail = self._tail, self._tail + len(data)
        # Shielded: a record that has a place is written, whoever stops waiting for it.
        try:
            await asyncio.shield(self._in_thread(lambda: self._write(start, data)))
        except Unavailable:
            self._broken = True
            raise

    async def take(self, max_bytes: int = MAX_TAKE_BYTES) -> list[Record]:
        """Remove and return the oldest records: about `max_bytes` of them, at least one if there is any.
        Only one caller at a time."""
        start = self._head
        if start == self._tail:
            return []
        records, end = await self._in_thread(lambda: self._read(start, max_bytes))
        self._head = end if records or not self._broken else self._tail
        return records

    def _in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _write(self, start: int, data: bytes) -> None:
        if start != self._readable:
            raise Unavailable("the spool is broken: an earlier record could not be written")
        place = start % self.capacity_bytes
        first = data[: self.capacity_bytes - place]
        try:
            _write_all(self._file, first, place)
            _write_all(self._file, data[len(first) :], 0)
        except OSError as error:
            raise Unavailable(f"the spool cannot be written: {error.strerror}") from error
        self._readable = start + len(data)

    def _read(self, start: int, max_bytes: int) -> tuple[list[Record], int]:
        until = self._readable
        data = self._bytes(start, min(until, start + max(max_bytes, _HEADER.size)))
        records: list[Record] = []
        at = 0
        while start + at < until and (at < max_bytes or not records):
            if len(data) < at + _HEADER.size:
                break
            owner, n, length = _HEADER.unpack_from(data, at)
            end = at + _HEADER.size + length
            if len(data) < end:
                if records:
                    break
                data = self._bytes(start, start + end)
            records.append(Record(owner, n, data[at + _HEADER.size : end]))
            at = end
        return records, start + at

    def _bytes(self, start: int, end: int) -> bytes:
        place, length = start % self.capacity_bytes, end - start
        first = _read_all(self._file, min(length, self.capacity_bytes - place), place)
        return first + _read_all(self._file, length - len(first), 0)


@asynccontextmanager
async def open_spool(capacity_bytes: int, directory: str | None = None) -> AsyncGenerator[Spool, None]:
    """A spool of exactly so many bytes, in `directory` (the system's temporary one if absent).
    Raises NoRoom or Unwritable, or Unavailable for what else keeps it from being had."""
    with ThreadPoolExecutor(1, thread_name_prefix="spool") as thread:
        loop = asyncio.get_running_loop()
        file = await loop.run_in_executor(thread, _reserve, capacity_bytes, directory or tempfile.gettempdir())
        try:
            yield Spool(file, capacity_bytes, thread)
        finally:
            await asyncio.shield(loop.run_in_executor(thread, os.close, file))


def _reserve(capacity_bytes: int, directory: str) -> int:
    try:
        _open_ours(directory)
        try:
            file = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC | os.O_EXCL, 0o600)
        except OSError:  # not every file system can: then made and unlinked
            file, name = tempfile.mkstemp(prefix=".sandreel-", dir=directory)
            os.unlink(name)  # noqa: PTH108
        try:
            os.posix_fallocate(file, 0, capacity_bytes)
        except OSError:
            os.close(file)
            raise
    except OSError as error:
        kind = NoRoom if error.errno in _NO_ROOM else Unwritable if error.errno in _UNWRITABLE else Unavailable
        raise kind(f"no {capacity_bytes} bytes for the spool in {directory}: {error.strerror}") from error
    return file


def _open_ours(directory: str) -> None:
    """A session that has closed its own workspace (`chmod`) would never boot again: what is ours is opened."""
    found = os.stat(directory)  # noqa: PTH116 - beside os.chmod
    if found.st_uid == os.geteuid() and (found.st_mode & stat.S_IRWXU) != stat.S_IRWXU:
        with suppress(OSError):  # then it is the file that cannot be made
            os.chmod(directory, stat.S_IMODE(found.st_mode) | stat.S_IRWXU)  # noqa: PTH101


def _write_all(file: int, data: bytes, place: int) -> None:
    while data:
        written = os.pwrite(file, data, place)
        data, place = data[written:], place + written


def _read_all(file: int, length: int, place: int) -> bytes:
    parts: list[bytes] = []
    while length > 0:
        part = os.pread(file, length, place)
        if not part:
            raise Unavailable("the spool is shorter than what was written to it")
        parts.append(part)
        length, place = length - len(part), place + len(part)
    return b"".join(parts)
