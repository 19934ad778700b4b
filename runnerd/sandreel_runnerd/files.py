"""Files of the workspace: list, read, write in chunks, delete. Blocking; called in a thread."""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import heapq
import os
import stat
import threading
import time
from collections import OrderedDict
from typing import Literal, NamedTuple

from sandreel_core.contract.files import (
    FILE_CHUNK_BYTES,
    MAX_COPY_BYTES,
    DeleteFile,
    FileChunk,
    FileEntry,
    FileList,
    FileStored,
    ListFiles,
    ReadFile,
    WriteFile,
)
from sandreel_core.errors import NotFound, Refused
from sandreel_runnerd.chunk import chunk
from sandreel_runnerd.root import Root, refusal
from sandreel_runnerd.upload import Upload

MAX_ENTRIES = 10_000
# One answer stays well below the server's default payload of 1 MiB.
_MAX_LIST_BYTES = 512 * 1024
_ENTRY_BYTES = 70  # what an entry's JSON needs besides its name
_MAX_UPLOADS = 8
_MAX_FINISHED = 64
_UPLOAD_IDLE_S = 120.0


class _Open:
    """An upload with its last sign of life."""

    def __init__(self, upload: Upload, path: str) -> None:
        self.upload = upload
        self.path = path
        self.lock = threading.Lock()
        self.seen = time.monotonic()


class _Finished(NamedTuple):
    """An upload that has become a file: what its last chunk is answered with when it comes again."""

    stored: FileStored
    path: str

    def check(self, request: WriteFile, data: bytes) -> None:
        """Raises Refused(BAD_REQUEST) when the chunk is none of this file's, as far as can be seen."""
        end, sha256 = request.offset + len(data), self.stored.sha256 or ""
        same = request.path == self.path and end <= self.stored.size
        if same and request.eof:
            # A file of one chunk is known by its bytes, another by the digest that comes along.
            digest = request.sha256 or sha256 if request.offset else hashlib.sha256(data).hexdigest()
            same = end == self.stored.size and digest.lower() == sha256
        if not same:
            raise Refused("BAD_REQUEST", f"the upload {request.upload} is done and was one of another file")


class Files:
    """What the file requests do. Safe to call from several threads."""

    def __init__(self, root: Root, *, max_write_bytes: int = MAX_COPY_BYTES) -> None:
        self._root = root
        self._max_write_bytes = max_write_bytes
        self._lock = threading.Lock()
        self._uploads: dict[str, _Open] = {}
        self._finished: OrderedDict[str, _Finished] = OrderedDict()

    def list(self, request: ListFiles) -> FileList:
        """Raises NotFound, Refused (BAD_REQUEST, UNSAFE_PATH, NOT_A_DIRECTORY, NOT_PERMITTED)."""
        entries: list[FileEntry] = []
        after = _name_of(request.after)
        next: str | None = None
        with self._root.directory(request.path) as (fd, _):
            try:
                listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            except OSError as error:
                raise refusal(request.path, error) from error
            try:
                with os.scandir(listing) as found:
                    behind = (entry.name for entry in found if entry.name > after)
                    names = heapq.nsmallest(MAX_ENTRIES + 1, behind)
                truncated = len(names) > MAX_ENTRIES
                size = 0
                for name in names[:MAX_ENTRIES]:
                    size += len(os.fsencode(name)) * 2 + _ENTRY_BYTES
                    if size > _MAX_LIST_BYTES:
                        truncated = True
                        break
                    next = os.fsencode(name).hex()
                    if (entry := _entry(listing, name)) is not None:
                        entries.append(entry)
            finally:
                os.close(listing)
        return FileList(entries=entries, truncated=truncated, next=next if truncated else None)

    def read(self, request: ReadFile) -> FileChunk:
        """Raises NotFound, Refused (UNSAFE_PATH, NOT_A_FILE, TOO_LARGE, CHANGED, NOT_PERMITTED)."""
        with self._root.place(request.path, follow=True) as place:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                fd = os.open(place.name, flags, dir_fd=place.fd)
            except FileNotFoundError as error:
                raise NotFound(f"there is no {request.path[:200]!r} in the workspace") from error
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENXIO):
                    raise Refused("NOT_A_FILE", f"{request.path[:200]!r} is not a regular file") from error
                raise refusal(request.path, error) from error
        try:
            return chunk(fd, request)
        except OSError as error:
            raise refusal(request.path, error) from error
        finally:
            os.close(fd)

    def write(self, request: WriteFile) -> tuple[FileStored, str | None]:
        """Take one chunk. With the last one: the file's path relative to the workspace, else None.

        A chunk that was taken already is answered again and changes nothing. Raises Refused: BAD_REQUEST (also for a
        chunk of another file than the upload's),
        OUT_OF_ORDER (send again from the size that it names), CHECKSUM, TOO_LARGE, NO_SPACE, UPLOAD_LIMIT.
        """
        try:
            data = base64.b64decode(request.base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused("BAD_REQUEST", "the field base64 is not base64") from error
        if len(data) > FILE_CHUNK_BYTES:
            raise Refused("BAD_REQUEST", f"a chunk has at most {FILE_CHUNK_BYTES} bytes")
        while True:
            with self._lock:
                done = self._finished.get(request.upload)
            if done is not None:
                if not request.abort:
                    done.check(request, data)
                return done.stored, None
            if request.abort:
                return self._abort(request.upload), None
            open = self._opened(request)
            if open.path != request.path:
                raise Refused("BAD_REQUEST", f"the upload {request.upload} is one of another path")
            with open.lock:
                if not self._is_open(request.upload, open):
                    continue  # it became a file, or failed, while this chunk waited
                open.upload.mode = request.mode
                open.seen = time.monotonic()
                return self._take(open.upload, request, data)

    def _is_open(self, upload: str, open: _Open) -> bool:
        with self._lock:
            return self._uploads.get(upload) is open

    def _abort(self, id: str) -> FileStored:
        with self._lock:
            open = self._uploads.pop(id, None)
        if open is not None:
            with open.lock:
                open.upload.abort()
        return FileStored(size=0)

    def _take(self, upload: Upload, request: WriteFile, data: bytes) -> tuple[FileStored, str | None]:
        repeated = request.offset + len(data) <= upload.size and request.offset < upload.size
        if repeated and not request.eof:
            return FileStored(size=upload.size), None
        if request.offset != upload.size and not repeated:
            raise Refused("OUT_OF_ORDER", f"the upload has {upload.size} bytes, the chunk begins at {request.offset}")
        try:
            if not repeated:
                upload.append(data)
            if not request.eof:
                return FileStored(size=upload.size), None
            digest = upload.finish(request.sha256)
        except Refused:
            with self._lock:
                self._uploads.pop(request.upload, None)
            upload.abort()
            raise
        stored = FileStored(size=upload.size, sha256=digest)
        with self._lock:
            self._uploads.pop(request.upload, None)
            self._finished[request.upload] = _Finished(stored, request.path)
            if len(self._finished) > _MAX_FINISHED:
                self._finished.popitem(last=False)
        return stored, upload.path

    def _opened(self, request: WriteFile) -> _Open:
        with self._lock:
            self._forget_idle()
            open = self._uploads.get(request.upload)
            if open is not None:
                return open
            if request.offset:
                raise Refused("OUT_OF_ORDER", f"no upload {request.upload} is under way: begin at 0")
            if len(self._uploads) >= _MAX_UPLOADS:
                raise Refused("UPLOAD_LIMIT", f"{_MAX_UPLOADS} uploads are under way; finish one, or wait")
            open = _Open(self.begin(request.path, mode=request.mode, max_bytes=self._max_write_bytes), request.path)
            self._uploads[request.upload] = open
            return open

    def _forget_idle(self) -> None:
        until = time.monotonic() - _UPLOAD_IDLE_S
        for id in [id for id, open in self._uploads.items() if open.seen < until]:
            self._uploads.pop(id).upload.abort()

    def begin(self, path: str, *, mode: int, max_bytes: int) -> Upload:
        """A file that is to stand under `path`, in place of what stands there (a link itself, not its target)."""
        with self._root.place(path, create=True) as place:
            return Upload(place, mode=mode, max_bytes=max_bytes)

    def delete(self, request: DeleteFile) -> str:
        """Remove a file, a link or an empty directory; its path relative to the workspace.

        Raises NotFound, Refused (UNSAFE_PATH, NOT_EMPTY, NOT_PERMITTED)."""
        with self._root.place(request.path) as place:
            try:
                try:
                    os.unlink(place.name, dir_fd=place.fd)
                except IsADirectoryError:
                    os.rmdir(place.name, dir_fd=place.fd)
            except FileNotFoundError as error:
                raise NotFound(f"there is no {request.path[:200]!r} in the workspace") from error
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise Refused("NOT_EMPTY", f"{request.path[:200]!r} is a directory that is not empty") from error
                raise refusal(request.path, error) from error
            return place.path

    def close(self) -> None:
        """Forget what never became whole."""
        with self._lock:
            for open in self._uploads.values():
                open.upload.abort()
            self._uploads.clear()


def _entry(directory: int, name: str) -> FileEntry | None:
    """None for what went away meanwhile. A name that is not UTF-8 is shown with replacement characters."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None
    shown = os.fsencode(name).decode("utf-8", "replace")
    kind: Literal["file", "dir", "other"] = "other"
    if stat.S_ISREG(status.st_mode):
        kind = "file"
    elif stat.S_ISDIR(status.st_mode):
        kind = "dir"
    size = status.st_size if kind == "file" else 0
    modified_ms = max(0, status.st_mtime_ns // 1_000_000)
    return FileEntry(name=shown, kind=kind, size=size, modified_ms=modified_ms, mode=status.st_mode & 0o777)


def _name_of(token: str | None) -> str:
    """The name behind which a page begins. It travels as the hexadecimal of its bytes, which need not be UTF-8."""
    try:
        return os.fsdecode(bytes.fromhex(token or ""))
    except ValueError as error:
        raise Refused("BAD_REQUEST", "the field after is not what a page called next") from error
