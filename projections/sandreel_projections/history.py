"""All that ever stood in a stream, in its order: what was archived, merged with what is still there.

An archive keeps each exec's messages together, and the stream keeps their ends; a rebuild needs both in the order of
the stream, so that its cursor means the same as the projector's. The archive's messages are sorted on disk first.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from sandreel_core.archive import Manifest, manifests, read
from sandreel_core.bus.port import Bus, CaughtUp, Item, Missing, Stored, StreamState
from sandreel_core.errors import Malformed, Misconfigured, Unavailable
from sandreel_projections.source import Source

# Messages of the archive that are handed on at once, and read from disk at once.
_PAGE = 500


class Archived:
    """The archived messages of one stream behind a sequence, each once, in their order: in a file that goes with it."""

    def __init__(self, path: Path) -> None:
        # Written and read by one thread at a time.
        self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._file.execute("PRAGMA journal_mode = OFF")  # a crash takes the file with it
        self._file.execute("PRAGMA synchronous = OFF")
        self._file.execute("CREATE TABLE messages (sequence INTEGER PRIMARY KEY, time_ns INTEGER, subject, body)")

    @classmethod
    @asynccontextmanager
    async def of(
        cls, directory: Path, found: Sequence[Part], after: int = 0, *, prefix: str = ""
    ) -> AsyncGenerator[Archived, None]:
        """The messages of these archive files, on subjects that begin so; needs as much temporary disk (TMPDIR) as
        they have uncompressed.

        Raises Misconfigured for a file that is missing, is not the one that its manifest describes, or has no room.
        """
        with tempfile.TemporaryDirectory(prefix="sandreel-rebuild-") as folder:
            archived = cls(Path(folder) / "messages")
            try:
                await asyncio.to_thread(archived._load, directory, found, after, prefix)
                yield archived
            finally:
                archived._file.close()

    def _load(self, directory: Path, found: Sequence[Part], after: int, prefix: str) -> None:
        try:
            for manifest, up_to in found:
                ends = [exec_.terminal_seq for exec_ in manifest.execs if exec_.subject.startswith(prefix)]
                if ends and max(ends) > after:
                    messages = read(directory, manifest)
                    self._add(
                        each for each in messages if after < each.sequence <= up_to and each.subject.startswith(prefix)
                    )
        except (Malformed, OSError, sqlite3.Error, EOFError) as error:
            raise Misconfigured(f"the archive in {directory} cannot be read: {error}") from error

    def _add(self, messages: Iterable[Stored]) -> None:
        # An exec that an archiver wrote and was killed before it purged stands in two files.
        rows = ((each.sequence, each.time_ns, each.subject, each.body) for each in messages)
        self._file.execute("BEGIN")
        self._file.executemany("INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?)", rows)
        self._file.execute("COMMIT")

    def count(self, after: int = 0) -> int:
        """How many there are behind a sequence."""
        [(count,)] = self._file.execute("SELECT count(*) FROM messages WHERE sequence > ?", (after,))
        return int(count)

    def between(self, after: int, up_to: int) -> Iterator[Stored]:
        """Those behind `after`, and no further than `up_to`."""
        while rows := self._file.execute(
            "SELECT subject, sequence, body, time_ns FROM messages WHERE sequence > ? AND sequence <= ?"
            " ORDER BY sequence LIMIT ?",
            (after, up_to, _PAGE),
        ).fetchall():
            for row in rows:
                yield Stored(*row)
            after = rows[-1][1]


class Part(NamedTuple):
    """A file of the archive, of which messages up to this sequence belong to the stream."""

    manifest: Manifest
    up_to: int


# By epoch, up to which sequence a stream is the one that had it.
Lineage = Mapping[str, int]
_WITHOUT_END = 1 << 63


def lineage(state: StreamState) -> Lineage:
    """What was archived before a stream was restored belongs to it as far as the copy reached: what was stored behind
    that is lost, and other events have those sequences now."""
    return {**dict(reversed(state.ancestors)), state.epoch: _WITHOUT_END}


def listed(directory: Path | None, stream: str, epochs: Lineage) -> list[Part]:
    """The archive files of a stream. Raises Misconfigured when they cannot be read."""
    if directory is None:
        return []
    try:
        found = manifests(directory, stream)
        return [Part(manifest, epochs[manifest.epoch]) for manifest in found if manifest.epoch in epochs]
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise Misconfigured(f"the archive in {directory} cannot be read: {error}") from error


async def history(
    bus: Bus, source: Source, archived: Archived | None, *, after: int, up_to: int, patience_s: float
) -> AsyncGenerator[Item, None]:
    """Batches behind `after` up to `up_to` (which the stream must have reached), and Missing where the stream begins
    later than that. Raises what `follow` raises, and Unavailable when nothing comes for so long: `follow` itself waits
    for a server without end."""
    older = iter(()) if archived is None else archived.between(after, up_to)
    async with aclosing(bus.follow(source.stream, source.filters, after=after, live=False)) as items:
        async for item in merged(_in_time(items, source.stream, patience_s), older, up_to):
            yield item


async def _in_time(items: AsyncGenerator[Item, None], stream: str, patience_s: float) -> AsyncGenerator[Item, None]:
    while True:
        try:
            async with asyncio.timeout(patience_s):
                item = await anext(items, None)
        except TimeoutError as error:
            raise Unavailable(f"NATS: nothing of {stream} came for {patience_s:g} s") from error
        if item is None:
            return
        yield item


async def merged(
    items: AsyncGenerator[Item, None], older: Iterator[Stored], up_to: int
) -> AsyncGenerator[Missing | list[Stored], None]:
    """Both by sequence, each message once, in batches of bounded size."""
    waiting = next(older, None)
    async for item in items:
        if isinstance(item, Missing):
            yield item
            continue
        if isinstance(item, CaughtUp):
            break
        batch: list[Stored] = []
        for stored in item:
            if stored.sequence > up_to:
                break
            while waiting is not None and waiting.sequence <= stored.sequence:
                if waiting.sequence < stored.sequence:
                    batch.append(waiting)
                waiting = next(older, None)
                if len(batch) >= _PAGE:
                    yield batch
                    batch = []
            batch.append(stored)
        if batch:
            yield batch
        if item[-1].sequence >= up_to:
            break
    rest: list[Stored] = []
    while waiting is not None:
        rest.append(waiting)
        waiting = next(older, None)
        if len(rest) >= _PAGE or waiting is None:
            yield rest
            rest = []
