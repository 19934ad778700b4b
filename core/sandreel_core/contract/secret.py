"""The value of a lease, asked for over `req.` for one exec: of the broker, or of the bridge whose gateway's key it is."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sandreel_core.contract.message import Id
from sandreel_core.contract.requests import Reply, Request

MAX_SECRET_BYTES = 32 * 1024  # as a variable's value, design §5
MAX_SEALED_CHARS = (MAX_SECRET_BYTES + 48 + 2) // 3 * 4  # base64 of the box, which adds 48 bytes


class AskSecret(Request, frozen=True, kw_only=True):
    """The value of a lease, for one exec that is about to start. It comes sealed to the session's key `seal`, which
    whoever answers takes from `session.ready`, and never from whoever asks. Of the broker's, `lease` is the credential's
    slug: every exec that gets it is a lease of its own. `boot_id`: whose exec it is."""

    lease: Id
    exec: Id
    boot_id: Id | None = None


class Secret(Reply, frozen=True, kw_only=True):
    """`sealed`: base64 of an anonymous box (`keys.seal`) of the value's UTF-8, at most 32 KiB."""

    sealed: Annotated[str, Meta(max_length=MAX_SEALED_CHARS)]
