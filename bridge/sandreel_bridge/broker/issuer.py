"""Who makes short-lived tokens with a value of the vault, and ends them. `github_app.py` is the first."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from msgspec import Struct


class Minted(Struct, frozen=True, kw_only=True):
    """A token, until when it works, and what it is limited to (empty: what its issuer gives at most)."""

    token: str
    expires_at: datetime
    resource: str = ""

    def __repr__(self) -> str:
        return f"Minted(expires_at={self.expires_at}, resource={self.resource!r})"


class Issuer(Protocol):
    """Makes tokens with a value of the vault."""

    async def mint(self, value: bytes, options: Mapping[str, str], resource: str | None) -> Minted:
        """Raises Unavailable, Malformed (the value is no key), Refused (RESOURCE_NOT_ALLOWED, MINT_REFUSED)."""

    async def end(self, token: str, options: Mapping[str, str]) -> None:
        """It works no more, also when it did not before. Raises Unavailable, Refused."""
