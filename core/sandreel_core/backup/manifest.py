"""What a backup holds, as `manifest.json` says it; and whether it still holds that."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from sandreel_core.errors import Malformed, Misconfigured

NAME = "manifest.json"
VERSION = 1
_READ_BYTES = 1 << 20


class File(Struct, frozen=True, kw_only=True):
    """One file of the backup. `path` is relative to its directory."""

    path: str
    bytes: int
    sha256: str


class StreamCopy(Struct, frozen=True, kw_only=True):
    """One stream. `head` is the server's own description (`config`, `state`), which it wants back with the copy.

    last_sequence  that the copy has at least: what was stored while it was taken may be in it as well
    last_at        when that one was stored, by the server's clock; None in an empty stream
    """

    name: str
    epoch: str
    last_sequence: int
    last_at: str | None
    messages: int
    head: dict[str, Any]
    file: File


class ArchiveFile(Struct, frozen=True, kw_only=True):
    """One file of ended execs beside the streams (`sandreel archive`), which is not copied: it never changes."""

    stream: str
    file: str
    bytes: int
    sha256: str


class Dump(Struct, frozen=True, kw_only=True):
    """The views. `program` is what wrote them (`pg_dump --version`)."""

    program: str
    file: File


class Manifest(Struct, frozen=True, kw_only=True):
    """`archive` lists what a rebuild of the views needs beside the streams."""

    version: int = VERSION
    sandreel: str
    begun_at: datetime
    ended_at: datetime
    streams: list[StreamCopy]
    archive: list[ArchiveFile]
    dump: Dump | None = None


@contextmanager
def begun(directory: Path) -> Iterator[None]:
    """Make the directory, for nobody but us: a backup holds all that anybody has printed. While the context is open nobody else
    writes one there; when it ends with an error, what was written is taken away.

    Raises Misconfigured when there is something in it already, somebody else writes to it, or it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unwritable(directory, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process, however it ends
        except BlockingIOError:
            raise Misconfigured(f"another backup is being written to {directory}: give another directory") from None
        except OSError as error:
            raise _unwritable(directory, error) from error
        _check_empty(directory)
        try:
            yield
        except BaseException:
            _sweep(directory)
            raise
    finally:
        os.close(descriptor)


def _check_empty(directory: Path) -> None:
    try:
        taken = next(directory.iterdir(), None)
    except OSError as error:
        raise _unwritable(directory, error) from error
    if taken is not None:
        whole = "a backup" if (directory / NAME).exists() else f"{taken.name}, and no whole backup"
        raise Misconfigured(f"{directory} holds {whole} already: give a directory that is new or empty")


def _unwritable(directory: Path, error: OSError) -> Misconfigured:
    return Misconfigured(f"{directory} cannot be written to: {(error.strerror or 'error').lower()}")


def _sweep(directory: Path) -> None:
    """What a failed attempt has left, its manifest first: without it nothing of the rest is a backup."""
    for path in sorted(directory.iterdir(), key=lambda path: path.name != NAME):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def file_of(directory: Path, path: str) -> File:
    """What a file is now, after it was brought to the disk. Raises OSError."""
    with (directory / path).open("rb") as file:
        os.fsync(file.fileno())
    digest, size = _digest(directory / path)
    return File(path=path, bytes=size, sha256=digest)


def finish(directory: Path, manifest: Manifest) -> None:
    """From here on the directory is a backup. Raises OSError."""
    part = directory / f"{NAME}.part"
    with part.open("wb") as out:
        out.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
        out.flush()
        os.fsync(out.fileno())
    part.replace(directory / NAME)
    for folder in (directory, directory / "streams", directory.parent):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read(directory: Path) -> Manifest:
    """Raises Misconfigured when the directory is no whole backup, or of a later sandreel."""
    try:
        body = (directory / NAME).read_bytes()
    except FileNotFoundError:
        here = "it was not finished" if directory.is_dir() else "there is no such directory"
        raise Misconfigured(f"{directory} is no backup: {here} ({NAME} is missing)") from None
    except OSError as error:
        raise Misconfigured(f"{directory / NAME} cannot be read: {(error.strerror or 'error').lower()}") from error
    try:
        version = msgspec.json.decode(body, type=_Version).version
        if version > VERSION:
            raise Misconfigured(
                f"{directory} is a backup of version {version}, this sandreel knows {VERSION}: use a newer one"
            )
        return msgspec.json.decode(body, type=Manifest)
    except msgspec.DecodeError as error:
        raise Misconfigured(f"{directory / NAME} is not in order: {error}") from error


def check(directory: Path, file: File) -> None:
    """Raises Malformed when the file is not what the manifest says, or not there."""
    path = directory / file.path
    if path.resolve().parent not in (directory.resolve(), (directory / "streams").resolve()):
        raise Malformed(f"{NAME} names {file.path}, which is not in the backup")
    try:
        digest, size = _digest(path)
    except OSError as error:
        raise Malformed(f"{path} cannot be read: {(error.strerror or 'error').lower()}") from error
    if size != file.bytes:
        raise Malformed(f"{path} has {size} bytes, {NAME} says {file.bytes}")
    if digest != file.sha256:
        raise Malformed(f"{path} is not what was written: the digest differs")


def missing_archive(manifest: Manifest, archive: Path) -> list[str]:
    """Files of the archive that a rebuild of the views needs and that are not there, or not what they were."""
    missing = []
    for each in manifest.archive:
        try:
            known = _digest(archive / each.stream / each.file)
        except OSError:
            known = ("", 0)
        if known != (each.sha256, each.bytes):
            missing.append(f"{each.stream}/{each.file}")
    return missing


class _Version(Struct, frozen=True):
    version: int


def _digest(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size
