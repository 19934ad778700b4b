"""A prompt that is too long for a command, handed to the bridge over `req.`, piece by piece."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sandreel_core.contract.message import Count, Sha256
from sandreel_core.contract.requests import Request

MAX_LONG_PROMPT_BYTES = 4 * 1024 * 1024  # about as many tokens as a model reads


class StorePrompt(Request, frozen=True, kw_only=True):
    """A piece of a prompt that is too long for a command, for `turn.start`'s `prompt_object`: `FILE_CHUNK_BYTES` of its UTF-8, less only
    in the last one. Pieces may come again, and in any order.

    sha256, size  of the whole
    number        of the piece, from 0
    """

    sha256: Sha256
    size: Annotated[int, Meta(ge=1, le=MAX_LONG_PROMPT_BYTES)]
    number: Count
    base64: str
