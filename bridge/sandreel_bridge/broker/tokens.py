"""Tokens that were minted and not ended yet, kept sealed beside the vault: what a broker that died has made, the next one ends.

A token is kept before anybody may have it, and goes when its issuer has ended it, or when it has ended by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from sandreel_bridge.broker.vault import Name


class Place(Struct, frozen=True, kw_only=True):
    """Whose lease a token is."""

    lease: str
    name: Name
    session: str


class Kept(Struct, frozen=True, kw_only=True):
    """One token. `options` are what its issuer was given with it, `tries` how often somebody set about to end it, `said` whether
    the log says that this has failed. `token` None: it is kept, and cannot be opened."""

    place: Place
    expires_at: datetime
    options: Mapping[str, str]
    token: str | None
    tries: int = 0
    said: bool = False

    def __repr__(self) -> str:
        """Without the token: structs end up in tracebacks."""
        return f"Kept({self.place.lease}, expires_at={self.expires_at})"


class Late(Struct, frozen=True):
    """How many tokens somebody has tried in vain to end, and until when the last of them works."""

    count: int
    until: datetime | None


class Tokens(Protocol):
    """Every method raises Unavailable when they cannot be asked now. Any number of brokers work on the same."""

    async def keep(self, kept: Kept) -> None:
        """To be returned from before anybody has the token."""

    async def end(self, leases: Collection[str]) -> int:
        """The tokens of these leases are to be ended, from now on; how many there are for which that is news."""

    async def unclaimed(self, older_s: float) -> Sequence[Place]:
        """Those that nobody has said are to be ended, and that were kept so long ago; the oldest, of many."""

    async def claim(self, limit: int, again_s: float, *, by: str) -> Sequence[Kept]:
        """Tokens that are to be ended now, each by one broker: nobody else gets it before `again_s` has passed, twice that after
        another try, and so on up to a minute. Written down as a read."""

    async def said(self, lease: str) -> None:
        """The log says that the token has outlived its lease."""

    async def ended(self, kept: Kept, *, by: str) -> None:
        """Its issuer takes it no more: forget it."""

    async def expired(self, *, by: str) -> Sequence[Kept]:
        """Forget the tokens whose time is over; those that were to be ended before and were not. None is opened."""

    async def late(self, tries: int) -> Late:
        """Of the tokens that somebody has tried to end so often."""
