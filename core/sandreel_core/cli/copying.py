"""Files on their way into a session's workspace, or out of it: one by one, each whole or not at all."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from sandreel_core.cli.landing import Landing
from sandreel_core.cli.pipes import read_chunks, write_all
from sandreel_core.cli.progress import Progress
from sandreel_core.cli.text import is_utf8
from sandreel_core.client.files import Files
from sandreel_core.contract.files import FILE_CHUNK_BYTES
from sandreel_core.errors import Misconfigured, NotFound, Refused

_STDIN, _STDOUT = 0, 1


@dataclass(frozen=True, slots=True)
class Copied:
    source: str
    target: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Made:
    """A directory, which is empty."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Left:
    """What was not copied. `failed`: it should have been; else it is of a kind that is not (a link, a device, …)."""

    source: str
    why: str
    failed: bool


Step = Copied | Made | Left


class Copying:
    """`session` as the user named it, for the places in what is told."""

    def __init__(self, files: Files, session: str, progress: Progress) -> None:
        self._files = files
        self._session = session
        self._progress = progress

    # Into the workspace.

    async def into(self, source: Path, target: str) -> AsyncGenerator[Step, None]:
        """A file, or a directory with all that is in it; into `target` if that is a directory, else in its place."""
        if _is_dir(source):
            if _base(str(source)) and await self._files.kind(target) == "dir":
                target = _join(target, source.name)
            for path, why in _tree(source):
                place = target if path == source else _join(target, str(path.relative_to(source)))
                yield Left(printable(str(path)), why, failed=False) if why else await self._try_up(path, place)
            return
        if target.endswith("/") or await self._files.kind(target) == "dir":
            target = _join(target, source.name)
        yield await self._up(source, target)

    async def stdin_into(self, target: str) -> Copied:
        self._progress.begin(target, None)
        async with aclosing(read_chunks(_STDIN)) as pieces:
            stored = await self._files.write(target, self._counted(pieces))
        return Copied("-", self._remote(target), stored.size, stored.sha256 or "")

    async def _try_up(self, source: Path, target: str) -> Step:
        try:
            return await (self._make(source, target) if _is_dir(source) else self._up(source, target))
        except (Refused, Misconfigured) as error:
            return Left(printable(str(source)), str(error), failed=True)

    async def _make(self, source: Path, target: str) -> Made:
        _check_utf8(source, target)
        await self._files.make_directory(target)
        return Made(printable(str(source)), self._remote(target))

    async def _up(self, source: Path, target: str) -> Copied:
        _check_utf8(source, target)
        try:
            fd = os.open(
                source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            )  # a FIFO without a writer is not waited for
        except OSError as error:
            raise _unreadable(source, error) from error
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise Misconfigured(f"{str(source)!r} is no file and no directory; use - to copy from a pipe")
            self._progress.begin(str(source), status.st_size)
            async with aclosing(_local(fd, source, status)) as pieces:
                stored = await self._files.write(target, self._counted(pieces), mode=status.st_mode & 0o777)
        finally:
            os.close(fd)
        return Copied(printable(str(source)), self._remote(target), stored.size, stored.sha256 or "")

    # Out of it.

    async def out(self, source: str, target: Path, *, into_directory: bool) -> AsyncGenerator[Step, None]:
        """The same the other way. into_directory: `target` is one, also if it has to be made."""
        name = _base(source)
        if await self._files.kind(source or ".") == "dir":
            if name and _is_dir(target):
                target /= name
            async with aclosing(self._walk(source or ".", target)) as steps:
                async for step in steps:
                    yield step
            return
        if _is_dir(target) or into_directory:
            target /= name
        yield await self._down(source, target)

    async def out_to_stdout(self, source: str) -> Copied:
        download = await self._files.open(source)
        async with aclosing(download.pieces()) as pieces:
            async for piece in pieces:
                await write_all(_STDOUT, piece)
        return Copied(self._remote(source), "-", download.size, download.sha256 or "")

    async def _walk(self, source: str, target: Path) -> AsyncGenerator[Step, None]:
        directories = [(source.rstrip("/") or ".", target)]
        while directories:
            path, place = directories.pop()
            try:
                place.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise Misconfigured(f"{str(place)!r} cannot be made: {os.strerror(error.errno or 0)}") from error
            async with aclosing(self._files.entries(path)) as entries:
                async for entry in entries:
                    inner = _join(path, entry.name)
                    if entry.name in ("", ".", "..") or "/" in entry.name or "\0" in entry.name:
                        yield Left(self._remote(inner), "its name leads out of the directory", failed=True)
                    elif entry.kind == "dir":
                        directories.append((inner, place / entry.name))
                    elif entry.kind == "file":
                        yield await self._try_down(inner, place / entry.name)
                    else:
                        yield Left(self._remote(inner), "a link or a special file", failed=False)

    async def _try_down(self, source: str, target: Path) -> Step:
        try:
            return await self._down(source, target)
        except (Refused, NotFound) as error:
            return Left(self._remote(source), str(error), failed=True)

    async def _down(self, source: str, target: Path) -> Copied:
        download = await self._files.open(source)
        self._progress.begin(source, download.size)
        landing = await asyncio.to_thread(Landing, target)
        try:
            async with aclosing(download.pieces()) as pieces:
                async for piece in pieces:
                    await asyncio.to_thread(landing.write, piece)
                    self._progress.add(len(piece))
            await asyncio.to_thread(landing.publish, download.mode)
        finally:
            landing.close()
        return Copied(self._remote(source), printable(str(target)), download.size, download.sha256 or "")

    async def _counted(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for piece in pieces:
            yield piece
            self._progress.add(len(piece))

    def _remote(self, path: str) -> str:
        return f"{self._session}:{path}"


def printable(name: str) -> str:
    """For people and for JSON: what is not UTF-8 as \\xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _join(directory: str, name: str) -> str:
    """A path in the workspace."""
    return name if directory in ("", ".", "./") else f"{directory.rstrip('/')}/{name}"


def _is_dir(path: Path) -> bool:
    return path.is_dir()


def _base(path: str) -> str:
    """The last component; "" where only what is in the directory is meant (`.`, `dir/.`, the workspace itself)."""
    name = path.rstrip("/").rpartition("/")[2]
    return "" if name in (".", "..") else name


def _tree(source: Path) -> Iterator[tuple[Path, str]]:
    """Every entry below that is no directory, in order, and why it is not copied, if so; and directories that no file
    brings with it."""

    def unreadable(error: OSError) -> None:
        raise _unreadable(Path(str(error.filename)), error) from error

    for directory, names, files in os.walk(source, onerror=unreadable):
        links = [name for name in names if (Path(directory) / name).is_symlink()]
        names[:] = sorted(name for name in names if name not in links)
        brought = bool(names)
        for name in sorted([*files, *links]):
            path = Path(directory) / name
            is_file = path.is_file() and not path.is_symlink()
            brought = brought or is_file
            yield path, "" if is_file else "a link or a special file"
        if not brought:
            yield Path(directory), ""


def _check_utf8(source: Path, target: str) -> None:
    if not is_utf8(target):
        raise Misconfigured(f"{str(source)!r}: its name is not UTF-8, and in a session all names are")


async def _local(fd: int, source: Path, status: os.stat_result) -> AsyncGenerator[bytes, None]:
    """The file's bytes. Raises Refused (CHANGED) at the end when it was written meanwhile."""
    while data := await asyncio.to_thread(os.read, fd, FILE_CHUNK_BYTES):
        yield data
    now = os.fstat(fd)
    if (now.st_size, now.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
        raise Refused("CHANGED", f"{str(source)!r} was written while it was read")


def _unreadable(source: Path, error: OSError) -> Misconfigured:
    return Misconfigured(f"{str(source)!r} cannot be read: {os.strerror(error.errno or 0)}")
