"""The gateway's own file, in which every call stands from its beginning until NATS has it: a gateway that is killed while NATS is away
finds there what it has let through.

`calls.jsonl` in `[gateway] state_directory`: one line an entry, written before anything else is done, by a plain write, so that SIGKILL
loses none; what NATS does not take is synced to the disk as well (`sync`). It is locked by the gateway that has it open.

It is bounded. When it is full, or the disk takes nothing, no call begins (law 8): one that nobody could charge is not let through.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from sandreel_bridge.gateway.measures import GatewayMeasures
from sandreel_bridge.gateway.purse import OpenCall
from sandreel_core.errors import Misconfigured, Unavailable
from sandreel_core.health import Health
from sandreel_core.log import Log

FILE = "calls.jsonl"
# What NATS has is not needed any more. Emptying the file costs more than a line does, so it is done at this size.
_EMPTIED_AT_BYTES = 64 * 1024
# The gateway before us, once it has seen that we have the keys (a second), has some seconds for its last words.
_LOCK_WITHIN_S = 20.0
_POLL_S = 0.05
_PART = "daybook"


class Began(Struct, frozen=True, kw_only=True, tag="began"):
    """`key` of that name that was made at `since`; `step`: see `Progress`. The same below."""

    key: str
    since: datetime
    step: int
    call: OpenCall


class Ended(Struct, frozen=True, kw_only=True, tag="ended"):
    """`event`: the body of its `usage.recorded`, on that subject."""

    key: str
    since: datetime
    step: int
    call_id: str
    subject: str
    event: Raw


class Dropped(Struct, frozen=True, kw_only=True, tag="dropped"):
    """It has never reached its provider."""

    key: str
    since: datetime
    step: int
    call_id: str


class Sent(Struct, frozen=True, kw_only=True, tag="sent"):
    """Its event is in the log."""

    call_id: str


Step = Began | Ended | Dropped
Entry = Step | Sent
_entry = msgspec.json.Decoder(Entry).decode
_line = msgspec.json.Encoder().encode


class Daybook:
    """`found`: what stood in it when it was opened, in order. See `open_daybook`."""

    def __init__(
        self, file: int, path: Path, found: list[Entry], *, max_bytes: int, health: Health, measures: GatewayMeasures
    ) -> None:
        self.found = found
        self._file = file
        self._path = path
        self._max_bytes = max_bytes
        self._emptied_at = min(_EMPTIED_AT_BYTES, max_bytes // 4)
        self._health = health
        self._measures = measures
        self._size = os.fstat(file).st_size
        self._unsynced = False
        # Entries that the disk has not taken yet, oldest first: ends of calls that had begun, so no more than those under way.
        self._late: list[bytes] = []
        self._trouble: str | None = None
        self._log = Log("gateway")

    def check(self) -> None:
        """Raises Unavailable when no call may begin: the file is full, or cannot be written."""
        if self._trouble is not None:
            raise Unavailable(f"the gateway cannot write down what calls use: {self._trouble}", retry_after_s=5)
        if self._size >= self._max_bytes:
            raise Unavailable(
                f"the gateway cannot write down what more calls use: NATS takes nothing, and {FILE} has {self._max_bytes} bytes",
                retry_after_s=5,
            )

    def begin(self, entry: Began) -> None:
        """Raises Unavailable as `check`, and then nothing of it stands in the file."""
        if self._size >= self._max_bytes:
            self.check()
        self._write(entry)
        if self._trouble is not None:
            self._late.pop()  # the call does not begin
            self.check()

    def add(self, entry: Ended | Dropped | Sent) -> None:
        """What cannot be written now is kept in memory, and tried again before the next entry."""
        self._write(entry)

    def retry(self) -> None:
        """See whether the disk takes something again, when it did not the last time."""
        if self._trouble is not None:
            self._write(None)

    def settled(self) -> None:
        """NATS has everything that stands here."""
        self._late.clear()
        if self._size > self._emptied_at or (self._size and self._trouble is not None):
            self.empty()

    def empty(self) -> None:
        """Only when NATS has everything."""
        try:
            os.ftruncate(self._file, 0)
        except OSError as error:
            self._failed(error)
        else:
            self._size = 0
            self._measures.daybook_bytes.set(0)

    async def sync(self) -> None:
        """What is written is on the disk afterwards, also should the machine lose its power."""
        if self._unsynced:
            self._unsynced = False
            try:
                await asyncio.to_thread(os.fdatasync, self._file)
            except OSError as error:
                self._unsynced = True
                self._failed(error)

    def _write(self, entry: Entry | None) -> None:
        # An empty line, which a reader passes over, is the way to see whether the disk takes something.
        self._late.append(b"\n" if entry is None else _line(entry) + b"\n")
        try:
            while self._late:
                self._put(self._late[0])
                self._late.pop(0)
        except OSError as error:
            if entry is None:
                self._late.pop()
            self._failed(error)
        else:
            if self._trouble is not None:
                self._log.info("calls can be written down again", file=str(self._path))
                self._trouble = None
            self._health.well(_PART)
        self._measures.daybook_bytes.set(self._size)

    def _put(self, line: bytes) -> None:
        written = os.pwrite(self._file, line, self._size)
        if written < len(line):  # half of a line stands behind the end that we know, and is written over
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written
        self._unsynced = True

    def _failed(self, error: OSError) -> None:
        why = (error.strerror or "error").lower()
        if self._trouble is None:
            self._log.error("calls cannot be written down, so that none begins", file=str(self._path), problem=why)
        self._trouble = why
        self._measures.daybook_failures.add()
        self._health.trouble(_PART, f"no call is let through: {self._path} cannot be written: {why}")


@asynccontextmanager
async def open_daybook(
    directory: Path, *, max_bytes: int, health: Health, measures: GatewayMeasures, within_s: float = _LOCK_WITHIN_S
) -> AsyncGenerator[Daybook, None]:
    """Made if it is not there; ours alone while it is open. Raises Misconfigured where it cannot be made, read or written, when another
    gateway has it for longer than `within_s`, and for a line that cannot be read with others behind it."""
    path = directory / FILE
    file = await asyncio.to_thread(_open, path)
    try:
        await _lock(file, path, within_s)
        try:
            data = await asyncio.to_thread(_whole, file)
            found, good = read_entries(data, path)
            if good < len(data):
                Log("gateway").warning(
                    "the end of a line that was not whole is left out", file=str(path), bytes=len(data) - good
                )
                os.ftruncate(file, good)
            elif good == 0:
                os.pwrite(file, b"\n", 0)  # whether it can be written is known now, and not when a call has begun
                os.ftruncate(file, 0)
        except OSError as error:
            raise _unusable(path, error) from error
        yield Daybook(file, path, found, max_bytes=max_bytes, health=health, measures=measures)
    finally:
        os.close(file)


def read_entries(data: bytes, path: Path) -> tuple[list[Entry], int]:
    """(the entries, how many bytes they are). A last line without its end was being written when the gateway was killed, and is
    left out: nothing has happened behind it. Raises Misconfigured for any other that cannot be read. Pure."""
    *lines, rest = data.split(b"\n")
    found: list[Entry] = []
    for number, line in enumerate(lines, 1):
        try:
            if line:
                found.append(_entry(line))
        except msgspec.DecodeError as error:
            raise Misconfigured(
                f"line {number} of {path} cannot be read ({error}): what calls used stands there; mend it, or move the file away, and what is in it is not recorded"
            ) from error
    return found, len(data) - len(rest)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # so that a file that was just made is there after a power cut, too
        finally:
            os.close(directory)
        return file
    except OSError as error:
        raise _unusable(path, error) from error


async def _lock(file: int, path: Path, within_s: float) -> None:
    limit = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > limit:
                raise Misconfigured(f"[gateway] state_directory: another gateway has {path} open") from None
            await asyncio.sleep(_POLL_S)
        else:
            return


def _whole(file: int) -> bytes:
    size = os.fstat(file).st_size
    data = bytearray()
    while len(data) < size and (piece := os.pread(file, size - len(data), len(data))):
        data += piece
    return bytes(data)


def _unusable(path: Path, error: OSError) -> Misconfigured:
    why = (error.strerror or "error").lower()
    return Misconfigured(f"[gateway] state_directory: {path} cannot be used: {why}")
