"""Tokens that are made for one lease, and ended with it. A broker that dies forgets them: they end by themselves then."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from sandreel_core.errors import SandreelError
from sandreel_core.log import Log

# Each lives for an hour at most; beyond so many the oldest is left to end by itself.
_REMEMBERED = 10_000


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
        """It works no more. Raises Unavailable, Refused."""


class Minting:
    """The tokens that this broker has made, by lease."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._out: OrderedDict[str, tuple[Minted, Mapping[str, str]]] = OrderedDict()
        self._log = Log("broker.minting")

    async def mint(self, lease_id: str, value: bytes, options: Mapping[str, str], resource: str | None) -> Minted:
        """Raises as the issuer's `mint`."""
        minted = await self._issuer.mint(value, options, resource)
        self._out[lease_id] = (minted, options)
        if len(self._out) > _REMEMBERED:
            self._out.popitem(last=False)
        return minted

    async def end(self, lease_id: str) -> None:
        """End the lease's token, if it has one and this broker made it. Never raises: what fails is logged, and the token
        ends by itself."""
        minted, options = self._out.pop(lease_id, (None, {}))
        if minted is None:
            return
        try:
            await self._issuer.end(minted.token, options)
        except SandreelError as error:
            self._log.warning("a token was not ended", lease=lease_id, until=str(minted.expires_at), problem=str(error))
