"""The files of a session, asked of its runnerd over `req.`: list, read, write, delete, fetch. Bytes travel in chunks."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from sandreel_core.contract.message import Count, Id
from sandreel_core.contract.requests import Reply, Request

FILE_CHUNK_BYTES = 256 * 1024
MAX_READ_BYTES = 20 * 1024 * 1024  # behaviour §1: file read
MAX_FETCH_BYTES = 100 * 1024 * 1024  # behaviour §1: URL fetch
# What is copied piece by piece: its digest, taken at the end, still answers within a request's time (see `client.files`).
MAX_COPY_BYTES = 4 * 1024 * 1024 * 1024

Path = Annotated[str, Meta(min_length=1, max_length=4096)]


class ListFiles(Request, frozen=True, kw_only=True):
    """`after`: what the page before called `next`."""

    path: Path = "."
    after: Annotated[str, Meta(max_length=512)] | None = None


class FileEntry(Struct, frozen=True, kw_only=True):
    name: str
    kind: Literal["file", "dir", "other"]
    size: Count
    modified_ms: int
    mode: int | None = None


class FileList(Reply, frozen=True, kw_only=True):
    """At most 10,000 entries, by name; `truncated` says that there are more, `next` where they begin."""

    entries: list[FileEntry]
    truncated: bool = False
    next: str | None = None


class ReadFile(Request, frozen=True, kw_only=True):
    """One chunk. Of a file over 20 MiB nothing is read (TOO_LARGE), or with `pin` of one over 4 GiB.

    pin  "" in the first request, then what its answer called `pin`: all chunks are of one state of the file, and
         CHANGED is raised when it has another (size, time of change, or file). The digest comes with a chunk that
         is the whole file, or when `sha256` asks for it.
    """

    path: Path
    offset: Count = 0
    length: Annotated[int, Meta(ge=1, le=FILE_CHUNK_BYTES)] = FILE_CHUNK_BYTES
    pin: Annotated[str, Meta(max_length=128)] | None = None
    sha256: bool = False


class FileChunk(Reply, frozen=True, kw_only=True):
    """`size`, `mode` and `sha256` are of the whole file (the digest comes with the last chunk, or see `ReadFile.pin`)."""

    base64: str
    size: Count
    eof: bool
    sha256: str | None = None
    pin: str | None = None
    mode: int | None = None


class WriteFile(Request, frozen=True, kw_only=True):
    """One chunk of an upload; the last one carries the digest, and only then the file appears under its name. `abort`
    gives the upload up, and what has arrived with it."""

    path: Path
    upload: Id
    offset: Count
    base64: str
    eof: bool = False
    abort: bool = False
    sha256: str | None = None
    mode: Annotated[int, Meta(ge=0, le=0o777)] = 0o644
    actor: str | None = None


class DeleteFile(Request, frozen=True, kw_only=True):
    path: Path
    actor: str | None = None


class FetchFile(Request, frozen=True, kw_only=True):
    """Download into the workspace: http or https, at most 100 MiB, no private address, within `timeout_s`."""

    url: Annotated[str, Meta(min_length=1, max_length=8192)]
    path: Path
    timeout_s: Annotated[float, Meta(gt=0, le=600)] = 60
    sha256: str | None = None
    actor: str | None = None


class FileStored(Reply, frozen=True, kw_only=True):
    """`n_bytes` so far; with the last chunk, `sha256` of the whole."""

    size: Count
    sha256: str | None = None
