"""The files of a session's workspace, over `req.` and in pieces. Every byte is checked against a SHA-256 that the other
side took by itself, and nothing stands under its final name before that.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import suppress
from typing import Literal, TypeVar

import msgspec

from sandreel_core.client.recorder import Recorder
from sandreel_core.clock import new_token
from sandreel_core.contract import files as f
from sandreel_core.contract.requests import Done, Reply, Request
from sandreel_core.errors import Malformed, NotFound, Refused, SandreelError, Unavailable, Unserved

_R = TypeVar("_R", bound=Reply)
# While the bus or runnerd is away in the middle of a file: a NATS server that starts again takes a few seconds.
PATIENCE_S = 60.0
# The same while nobody serves the session, which may also mean that the file has gone.
_NOBODY_S = 15.0
_RETRY_S = 0.5
# Reads on their way at once: the next piece is read from the disk while the last one travels.
_WINDOW = 4
# What a slow disk reads, for the time that a digest may take.
_DIGEST_BYTES_PER_S = 50 * 1024 * 1024


class Files:
    """Made by `Client.files`. A path is relative to the workspace, or absolute below it; none leads out of it.

    Every method raises NotFound when there is no such file, Unserved (a NotFound) when nobody serves the session, Refused (UNSAFE_PATH,
    NOT_A_FILE, NOT_A_DIRECTORY, NOT_PERMITTED, NO_SPACE, TOO_LARGE, …) and Unavailable.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        actor: str | None,
        answer_timeout_s: float,
        admit: Callable[[str, int], None] | None = None,
    ) -> None:
        """admit: is told path and size in bytes of each file that is about to be read, and raises Refused to prevent it."""
        self._recorder = recorder
        self._admit = admit
        self._actor = actor
        self._answer_timeout_s = answer_timeout_s

    async def list(self, path: str = ".", *, after: str | None = None) -> f.FileList:
        """One page: at most 10,000 entries, by name. `after` is what the page before called `next`."""
        return await self.ask("list_files", f.ListFiles(path=path, after=after), f.FileList)

    async def entries(self, path: str = ".") -> AsyncGenerator[f.FileEntry, None]:
        """All of a directory, page after page. Close it."""
        after: str | None = None
        while True:
            page = await self.list(path, after=after)
            for entry in page.entries:
                yield entry
            if not page.truncated or page.next is None:
                return
            after = page.next

    async def kind(self, path: str) -> Literal["file", "dir"] | None:
        """What is there; None for nothing. What is no directory counts as a file."""
        try:
            await self.list(path)
        except Unserved:
            raise
        except NotFound:
            return None
        except Refused as refused:
            if refused.code != "NOT_A_DIRECTORY":
                raise
            return "file"
        return "dir"

    async def open(self, path: str) -> Download:
        """Begin to read a file of any size up to 4 GiB; its first piece has come."""
        first = await self.ask("read_file", f.ReadFile(path=path, pin=""), f.FileChunk)
        if self._admit is not None:
            self._admit(path, first.size)
        return Download(self, path, first)

    async def read(self, path: str, *, max_bytes: int = f.MAX_READ_BYTES) -> bytes:
        """A whole file. Raises Refused (TOO_LARGE) when it has more than `max_bytes`, CHANGED, CHECKSUM."""
        download = await self.open(path)
        if download.size > max_bytes:
            raise Refused("TOO_LARGE", f"{path[:200]!r} has {download.size} bytes, and {max_bytes} are to be read")
        return b"".join([piece async for piece in download.pieces()])

    async def write(self, path: str, data: bytes | AsyncIterable[bytes], *, mode: int = 0o644) -> f.FileStored:
        """Put a file in the place of what is there, directories above it included. It appears at once and whole, or,
        when `data` raises or this is cancelled, not at all. Raises Refused (CHECKSUM, UPLOAD_LIMIT, …)."""
        upload = _Upload(self, path, mode)
        try:
            async for piece in _pieces(data):
                await upload.send(piece)
            return await upload.finish()
        except BaseException:
            # Within a moment: what is not given up, runnerd forgets after two minutes.
            with suppress(SandreelError, TimeoutError):
                async with asyncio.timeout(1):
                    await upload.abort()
            raise

    async def make_directory(self, path: str) -> None:
        """An empty directory, and those above it; nothing where there is one. It is no event, as nothing of a directory is.

        There is no request for it: a file in it is begun and given up. Raises Refused (NOT_A_DIRECTORY).
        """
        upload = _Upload(self, f"{path.rstrip('/')}/{new_token('.d-')}", 0o600)
        await upload.send(b"")
        await upload.abort()

    async def delete(self, path: str) -> None:
        """A file, a link or an empty directory. Raises Refused (NOT_EMPTY)."""
        await self.ask("delete_file", f.DeleteFile(path=path, actor=self._actor), Done)

    async def fetch(self, url: str, path: str, *, sha256: str | None = None, timeout_s: float = 60.0) -> f.FileStored:
        """Let the session download at most 100 MiB itself, from a public address. Raises Refused (FETCH_FAILED, …)."""
        request = f.FetchFile(url=url, path=path, timeout_s=timeout_s, sha256=sha256, actor=self._actor)
        return await self.ask("fetch_file", request, f.FileStored, timeout_s=timeout_s + self._answer_timeout_s)

    async def ask(self, verb: str, request: Request, reply: type[_R], *, timeout_s: float | None = None) -> _R:
        """One request of runnerd's, and its answer."""
        body = await self._recorder.ask(
            verb, msgspec.json.encode(request), timeout_s=timeout_s or self._answer_timeout_s
        )
        try:
            return msgspec.json.decode(body, type=reply)
        except msgspec.DecodeError as error:
            raise Malformed(f"the answer to {verb} is not in order: {error}") from error

    async def again(self, verb: str, request: Request, reply: type[_R], *, timeout_s: float | None = None) -> _R:
        """Ask for something that may be asked twice, in the middle of a file: while nobody answers, for PATIENCE_S."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            try:
                return await self.ask(verb, request, reply, timeout_s=timeout_s)
            except (Unavailable, NotFound) as error:
                if loop.time() - began >= (PATIENCE_S if isinstance(error, Unavailable) else _NOBODY_S):
                    raise
                await asyncio.sleep(_RETRY_S)

    @property
    def actor(self) -> str | None:
        return self._actor

    def digest_timeout_s(self, size: int) -> float:
        """How long the other side may take to read so many bytes once more."""
        return self._answer_timeout_s + size / _DIGEST_BYTES_PER_S


class Download:
    """A file that is being read: `size` in bytes, `mode` its permissions, `sha256` once all of it has come."""

    def __init__(self, files: Files, path: str, first: f.FileChunk) -> None:
        self._files = files
        self._path = path
        self._first = first
        self.size = first.size
        self.mode = first.mode if first.mode is not None else 0o644
        self.sha256: str | None = None

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Its bytes, in order; the end comes only after both sides' digests were compared. Once. Close it.

        Raises Refused: CHANGED when the file is written meanwhile, CHECKSUM when what came is not what it holds.
        """
        digest = hashlib.sha256()
        data = _decoded(self._first)
        position = len(data)
        digest.update(data)
        if data:
            yield data
        flights: deque[asyncio.Task[f.FileChunk]] = deque()
        try:
            while position < self.size:
                while len(flights) < _WINDOW and (at := position + len(flights) * f.FILE_CHUNK_BYTES) < self.size:
                    flights.append(asyncio.ensure_future(self._read(at)))
                data = _decoded(await flights.popleft())
                if not data:
                    raise Refused("CHANGED", f"{self._path[:200]!r} became shorter while it was read")
                digest.update(data)
                position += len(data)
                yield data
        finally:
            for flight in flights:
                flight.cancel()
            await asyncio.gather(*flights, return_exceptions=True)
        await self._compare(digest.hexdigest())

    async def _read(self, offset: int) -> f.FileChunk:
        request = f.ReadFile(path=self._path, offset=offset, pin=self._first.pin)
        return await self._files.again("read_file", request, f.FileChunk)

    async def _compare(self, came: str) -> None:
        held = self._first.sha256
        if held is None:
            request = f.ReadFile(path=self._path, offset=self.size, length=1, pin=self._first.pin, sha256=True)
            timeout_s = self._files.digest_timeout_s(self.size)
            held = (await self._files.again("read_file", request, f.FileChunk, timeout_s=timeout_s)).sha256
        if came != held:
            raise Refused("CHECKSUM", f"what came of {self._path[:200]!r} has the SHA-256 {came}, the file {held}")
        self.sha256 = came


class _Upload:
    """A file on its way in."""

    def __init__(self, files: Files, path: str, mode: int) -> None:
        self._files = files
        self._path = path
        self._mode = mode
        self._id = new_token("u-")
        self._digest = hashlib.sha256()
        self._offset = 0
        self._begun = False

    async def send(self, data: bytes) -> None:
        self._digest.update(data)
        await self._write(data, eof=False)
        self._offset += len(data)

    async def finish(self) -> f.FileStored:
        stored = await self._write(b"", eof=True)
        if (stored.size, stored.sha256) != (self._offset, self._digest.hexdigest()):
            raise Refused(
                "CHECKSUM", f"{self._path[:200]!r} holds {stored.size} bytes with the SHA-256 {stored.sha256}"
            )
        return stored

    async def abort(self) -> None:
        if self._begun:
            request = f.WriteFile(path=self._path, upload=self._id, offset=0, base64="", abort=True)
            await self._files.ask("write_file", request, f.FileStored)

    async def _write(self, data: bytes, *, eof: bool) -> f.FileStored:
        request = f.WriteFile(
            path=self._path,
            upload=self._id,
            offset=self._offset,
            base64=base64.b64encode(data).decode(),
            eof=eof,
            sha256=self._digest.hexdigest() if eof else None,
            mode=self._mode,
            actor=self._files.actor,
        )
        # What cannot even begin is told at once: there may be no such session.
        ask, self._begun = (self._files.again if self._begun else self._files.ask), True
        return await ask("write_file", request, f.FileStored)


async def _pieces(data: bytes | AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Pieces of the size that one request may have, and a shorter one at the end."""
    if isinstance(data, bytes):
        for at in range(0, len(data), f.FILE_CHUNK_BYTES):
            yield data[at : at + f.FILE_CHUNK_BYTES]
        return
    gathered = bytearray()
    async for some in data:
        gathered += some
        while len(gathered) >= f.FILE_CHUNK_BYTES:
            yield bytes(gathered[: f.FILE_CHUNK_BYTES])
            del gathered[: f.FILE_CHUNK_BYTES]
    if gathered:
        yield bytes(gathered)


def _decoded(chunk: f.FileChunk) -> bytes:
    try:
        return base64.b64decode(chunk.base64, validate=True)
    except ValueError as error:
        raise Malformed("a piece of a file is not base64") from error
