"""Ended execs leave the stream for compressed files, so that a full stream is never the end.

What is written is the same messages, then a manifest, both synced to disk; only then the stream is purged, up
to the terminal event, which stays as a tombstone: nobody can start an exec of that id again, and a reader
that comes later is told of the gap. Killed at any moment, nothing is lost: an exec that was written and
not yet purged is simply written again.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import msgspec

from sandreel_core.bus.kept import kept
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.clock import new_token
from sandreel_core.contract import codec
from sandreel_core.contract.exec import Exited, Lost
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.subjects import reel
from sandreel_core.errors import Malformed
from sandreel_core.log import Log
from sandreel_core.ordinals import Ordinals

# An archive file is closed when it holds this much before compression: small enough to copy about and to read
# one exec from, large enough that a manifest is rarely the bigger part.
MAX_FILE_BYTES = 256 * 1024 * 1024

# Whatever was being written so long ago is not being written any more: its archiver was killed.
_LEFT_S = 24 * 3600.0

_log = Log("archive")


class Line(msgspec.Struct, frozen=True):
    """One message as an archive file keeps it: one JSON line. `body` is the message's own bytes, in `base64`
    instead where they are no JSON on one line (somebody may have written them by hand)."""

    seq: int
    time_ns: int
    subject: str
    body: msgspec.Raw = msgspec.Raw(b"null")
    base64: bytes | None = None


class Archived(msgspec.Struct, frozen=True):
    """One exec in the manifest. `terminal_seq` is the event that ended it, which stayed in the stream."""

    subject: str
    messages: int
    first_seq: int
    terminal_seq: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What one archive file holds. `sha256` is of the compressed file."""

    version: int = 1
    stream: str
    epoch: str
    file: str
    bytes: int
    sha256: str
    execs: list[Archived]


async def ended_execs(bus: Bus, partition: int, *, before_ns: int | None) -> AsyncGenerator[tuple[str, Stored], None]:
    """(subject, terminal event) of every exec that ended before this server time, or at all, and is still whole.

    Only execs whose newest message is their end are seen: the few with a stray repetition behind it stay.
    """
    stream = reel(partition)
    for subject, messages in (await bus.subjects(stream, f"evt.{partition}.*.*.exec.*")).items():
        if messages < 2:
            continue
        last = await bus.last(stream, subject)
        if last is None or (before_ns is not None and last.time_ns >= before_ns):
            continue
        try:
            event = codec.decode_event(subject, last.body)
        except Malformed:
            continue
        if isinstance(event.data, Exited | Lost):
            yield subject, last


async def archive(
    bus: Bus,
    partition: int,
    directory: Path,
    *,
    before_ns: int | None = None,
    down_to_bytes: int | None = None,
    stays: Callable[[str, Stored], bool] = lambda subject, end: False,
) -> list[Manifest]:
    """Move ended execs of one partition to files under `directory`; returns the manifests that were written.

    before_ns      only what ended before this server time
    down_to_bytes  oldest end first, and no further once the stream is this small
    stays          asked of every exec that is due, with its end: whether it stays in the stream after all
    Raises Unavailable when the bus goes away; OSError when the directory cannot be written.
    """
    stream = reel(partition)
    manifests: list[Manifest] = []
    ended = ended_execs(bus, partition, before_ns=before_ns)
    found = [(last.time_ns, subject, last) async for subject, last in ended if not stays(subject, last)]
    found.sort(key=lambda item: item[0])
    while found:
        state = await bus.state(stream)
        if down_to_bytes is not None and state.bytes <= down_to_bytes:
            break
        surplus = state.bytes - down_to_bytes if down_to_bytes is not None else None
        with _File.create(directory, stream, state.epoch) as file:
            while found and not file.full and (surplus is None or file.written < surplus):
                _, subject, last = found.pop(0)
                await file.add(bus, subject, last)
            manifest = file.close()
        if manifest is None:
            continue
        for exec_ in manifest.execs:
            await bus.purge(stream, exec_.subject, up_to=exec_.terminal_seq)
        manifests.append(manifest)
    return manifests


class _File:
    """One archive file while it is written, under a temporary name until it is whole."""

    def __init__(self, folder: Path, stream: str, epoch: str) -> None:
        self._folder = folder
        self._stream = stream
        self._epoch = epoch
        # A name of its own: two archivers at the same time must not write into one file.
        self._part = folder / f"{epoch}-{new_token()}.part"
        self._raw = self._part.open("xb")
        self._gzip = gzip.GzipFile(filename="", mode="wb", fileobj=self._raw, mtime=0)
        self._execs: list[Archived] = []
        self.written = 0

    @classmethod
    def create(cls, directory: Path, stream: str, epoch: str) -> _File:
        folder = directory / stream
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.part"):
            if left.stat().st_mtime < time.time() - _LEFT_S:
                left.unlink(missing_ok=True)
        return cls(folder, stream, epoch)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._gzip.close()  # before what it still has to write to
        finally:
            self._raw.close()
            self._part.unlink(missing_ok=True)

    @property
    def full(self) -> bool:
        return self.written >= MAX_FILE_BYTES

    async def add(self, bus: Bus, subject: str, terminal: Stored) -> None:
        """Append one exec's messages up to its end.

        Its end is the first terminal event that a reader takes: a later one that stands behind it (a repeat, or the
        `exited` of a boot that was closed as lost) must not become the tombstone, and stays behind it in the stream.
        One whose events do not lead to an end (a hole that nothing explains) is not listed, and so is neither purged
        nor read back: it needs a person's eye, not a gap.
        """
        messages, first, end, ordinals = 0, 0, 0, Ordinals()
        async with kept(bus, self._stream, [subject]) as of_exec:
            async for stored in of_exec:
                if stored.sequence > terminal.sequence or ordinals.ended:
                    break
                event = _event(stored)
                if not first and event is not None and isinstance(event.data, Exited | Lost):
                    return  # the tombstone of one that was archived before, and what stands behind it
                first = first or stored.sequence
                messages += 1
                if event is not None and ordinals.accept(event) and ordinals.ended:
                    end = stored.sequence
                encoded = msgspec.json.encode(_line(stored)) + b"\n"
                self._gzip.write(encoded)
                self.written += len(encoded)
        if ordinals.ended:
            self._execs.append(Archived(subject, messages, first, end))
        else:
            _log.warning("exec not archived: its events do not lead to its end", subject=subject, last_n=ordinals.last)

    def close(self) -> Manifest | None:
        """Sync, give the file its name, write the manifest beside it. None when no exec came to be listed."""
        if not self._execs:
            return None
        self._gzip.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.close()
        body = self._part.read_bytes()
        digest = hashlib.sha256(body).hexdigest()
        path = self._take_name(digest)
        manifest = Manifest(
            stream=self._stream,
            epoch=self._epoch,
            file=path.name,
            bytes=len(body),
            sha256=digest,
            execs=self._execs,
        )
        target = path.with_suffix("").with_suffix(".manifest.json")
        part = self._part.with_suffix(".manifest.part")
        with part.open("wb") as out:
            out.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
            out.flush()
            os.fsync(out.fileno())
        part.replace(target)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return manifest

    def _take_name(self, digest: str) -> Path:
        """The name says the first exec's end. A file that is there is never replaced by one that differs: what it
        holds may be nowhere else any more."""
        first, copy = self._execs[0].terminal_seq, 0
        while True:
            path = self._folder / f"{self._epoch}-{first:016d}{f'-{copy}' if copy else ''}.jsonl.gz"
            try:
                path.open("xb").close()
            except FileExistsError:
                if hashlib.sha256(path.read_bytes()).hexdigest() == digest:
                    return path
                copy += 1
            else:
                self._part.replace(path)
                return path


def _event(stored: Stored) -> Envelope | None:
    """None for what every reader skips."""
    try:
        return codec.decode_event(stored.subject, stored.body)
    except Malformed:
        return None


def _line(stored: Stored) -> Line:
    if b"\n" in stored.body or b"\r" in stored.body or _event(stored) is None:
        return Line(stored.sequence, stored.time_ns, stored.subject, base64=stored.body)
    return Line(stored.sequence, stored.time_ns, stored.subject, msgspec.Raw(stored.body))


def manifests(directory: Path, stream: str) -> list[Manifest]:
    """The manifests of one stream, oldest file first."""
    paths = sorted((directory / stream).glob("*.manifest.json"))
    return [msgspec.json.decode(path.read_bytes(), type=Manifest) for path in paths]


def read(directory: Path, manifest: Manifest) -> Iterator[Stored]:
    """Every message of the execs that one archive file lists, in the order of the file.

    Raises Malformed when the file is not the one that its manifest describes.
    """
    listed = {exec_.subject for exec_ in manifest.execs}
    path = directory / manifest.stream / manifest.file
    if hashlib.sha256(path.read_bytes()).hexdigest() != manifest.sha256:
        raise Malformed(f"{path} is not the file that its manifest describes: the digest differs")
    decoder = msgspec.json.Decoder(Line)
    with gzip.open(path, "rb") as lines:
        for text in lines:
            line = decoder.decode(text)
            if line.subject in listed:
                body = bytes(line.body) if line.base64 is None else line.base64
                yield Stored(line.subject, line.seq, body, line.time_ns)
