"""A prompt that is too long for a command, handed to a bridge that keeps it (`contract.prompt.StorePrompt`)."""

from __future__ import annotations

import asyncio
import base64
import hashlib

import msgspec

from sandreel_core.bus.port import Bus
from sandreel_core.contract.files import FILE_CHUNK_BYTES
from sandreel_core.contract.prompt import MAX_LONG_PROMPT_BYTES, StorePrompt
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Malformed, Unavailable, Unserved

# What of it stands in the log, for people.
BEGINNING_BYTES = 4096
_RETRY_S = 0.2


def beginning(prompt: bytes) -> str:
    """Of UTF-8, whole characters."""
    return prompt[:BEGINNING_BYTES].decode(errors="ignore")


async def hand_in(bus: Bus, subjects: SessionSubjects, prompt: bytes, *, within_s: float) -> str:
    """Its SHA-256, once a bridge keeps all of it. Raises Malformed for one over the limit, Unavailable when no bridge takes it within
    that time."""
    if len(prompt) > MAX_LONG_PROMPT_BYTES:
        raise Malformed(f"prompt has {len(prompt)} bytes; the limit is {MAX_LONG_PROMPT_BYTES}")
    digest = hashlib.sha256(prompt).hexdigest()
    subject = subjects.request("bridge", "prompt")
    trouble: Exception | None = None
    try:
        async with asyncio.timeout(within_s):
            for number, at in enumerate(range(0, len(prompt), FILE_CHUNK_BYTES)):
                encoded = base64.b64encode(prompt[at : at + FILE_CHUNK_BYTES]).decode()
                piece = StorePrompt(sha256=digest, size=len(prompt), number=number, base64=encoded)
                while True:
                    try:
                        await bus.request(subject, msgspec.json.encode(piece))
                        break
                    except (Unavailable, Unserved) as error:
                        trouble = error
                        await asyncio.sleep(_RETRY_S)
    except TimeoutError as error:
        raise Unavailable(f"no bridge has taken the prompt within {within_s:g} s ({trouble})") from error
    return digest
