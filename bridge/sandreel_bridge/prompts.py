"""Prompts that are too long for a command: handed to a bridge piece by piece, and kept by their digest until a turn has taken them.

Whoever asks for turns may not write streams, so a bridge writes for it. What is kept cannot be changed: a piece that is there already stays, and a whole
that does not have its digest is nobody's prompt.
"""

from __future__ import annotations

import base64
import hashlib
from contextlib import AbstractAsyncContextManager, suppress

import msgspec

from sandreel_core.bus.kept import kept
from sandreel_core.bus.port import Bus, Stream
from sandreel_core.contract.files import FILE_CHUNK_BYTES
from sandreel_core.contract.prompt import StorePrompt
from sandreel_core.contract.requests import Done
from sandreel_core.contract.subjects import parse_request_subject
from sandreel_core.errors import AlreadyExists, Conflict, Malformed, NotFound, Refused

PROMPTS = "PROMPTS"
# A turn takes its prompt when its program starts, and once more when its bridge dies soon after; a queue of turns may wait.
KEPT_S = 7 * 86_400.0
MAX_BYTES = 1024 * 1024 * 1024


def prompts(*, replicas: int = 1) -> Stream:
    """The stream of their pieces."""
    return Stream(
        name=PROMPTS,
        subjects=("prompt.>",),
        max_bytes=MAX_BYTES,
        max_age_s=KEPT_S,
        per_subject=1,
        discard_new_per_subject=True,
        replicas=replicas,
    )


class Prompts:
    """Of one installation. Every method raises Unavailable."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def open(self) -> AbstractAsyncContextManager[None]:
        """Take pieces while the context is open; any bridge does."""
        return self._bus.serve("req.bridge.*.*.prompt", self._take, group="prompts")

    async def _take(self, subject: str, body: bytes) -> bytes:
        _, org, _, _ = parse_request_subject(subject)
        try:
            piece = msgspec.json.decode(body, type=StorePrompt)
            data = base64.b64decode(piece.base64, validate=True)
        except (msgspec.DecodeError, ValueError) as error:
            raise Malformed(f"the request is not in order: {error}") from error
        begin = piece.number * FILE_CHUNK_BYTES
        expected = min(FILE_CHUNK_BYTES, piece.size - begin)
        if len(data) != expected or not data:
            raise Refused("BAD_REQUEST", f"piece {piece.number} of {piece.size} bytes has {len(data)}, not {expected}")
        with suppress(Conflict, AlreadyExists):  # it came before
            await self._bus.append(f"{_place(org, piece.sha256)}.{piece.number}", data, expected=0)
        return msgspec.json.encode(Done())

    async def read(self, org: str, sha256: str) -> str:
        """Raises NotFound for one that is not there as a whole, or is no text; what there is of it is dropped then."""
        pieces: dict[int, bytes] = {}
        async with kept(self._bus, PROMPTS, [f"{_place(org, sha256)}.*"]) as messages:
            async for stored in messages:
                pieces[int(stored.subject.rpartition(".")[2])] = stored.body
        whole = b"".join(pieces[number] for number in sorted(pieces))
        try:
            text = whole.decode()
        except UnicodeDecodeError:
            text = ""
        if not text or hashlib.sha256(whole).hexdigest() != sha256:
            await self._bus.purge(PROMPTS, f"{_place(org, sha256)}.*")
            raise NotFound(
                f"no prompt with the SHA-256 {sha256} is kept (each is, for {KEPT_S / 86_400:g} days): hand it in again"
            )
        return text


def _place(org: str, sha256: str) -> str:
    return f"prompt.{org}.{sha256}"
