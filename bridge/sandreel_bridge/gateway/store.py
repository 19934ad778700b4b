"""Where the gateway keeps its accounts and keys: documents in one small stream, of which the newest of each subject counts.

`gateway.owner`           the boot of the one gateway that writes them
`gateway.account.<org>`   the org's `Account`
`gateway.key.<digest>`    a live key's `Progress`
"""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from typing import TypeVar

import msgspec
from msgspec import Struct

from sandreel_bridge.gateway.account import Account
from sandreel_bridge.gateway.purse import Progress
from sandreel_core.bus.port import Bus, CaughtUp, Missing, Stored, Stream
from sandreel_core.errors import Malformed

GATEWAY = "GATEWAY"
# An account is some hundred keys of half a KiB, a live key's progress one.
MAX_BYTES = 256 << 20
_OWNER, _ACCOUNT, _KEY = "gateway.owner", "gateway.account.", "gateway.key."
T = TypeVar("T", bound=Struct)


def documents(*, replicas: int = 1) -> Stream:
    return Stream(name=GATEWAY, subjects=("gateway.>",), max_bytes=MAX_BYTES, per_subject=1, replicas=replicas)


class Owner(Struct, frozen=True):
    boot_id: str


class Store:
    """Every method raises Unavailable."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._revisions: dict[str, int] = {}
        self._doubtful: set[str] = set()

    async def take(self, boot_id: str) -> None:
        """Be the one that writes, from now on."""
        await self._bus.append(_OWNER, msgspec.json.encode(Owner(boot_id)))

    async def owner(self) -> str | None:
        stored = await self._bus.last(GATEWAY, _OWNER)
        return None if stored is None else _decode(stored, Owner).boot_id

    async def load(self) -> tuple[dict[str, Account], dict[str, Progress]]:
        """(accounts by org, progress by the name of the key). Raises Malformed for a document that cannot be read: a
        gateway that has forgotten what was spent must not serve."""
        accounts: dict[str, Account] = {}
        progress: dict[str, Progress] = {}
        async with aclosing(self._bus.follow(GATEWAY, ["gateway.>"], live=False)) as items:
            async for item in items:
                for stored in item if not isinstance(item, CaughtUp | Missing) else ():
                    if stored.subject.startswith(_ACCOUNT):
                        self._revisions[stored.subject] = stored.sequence
                        accounts[stored.subject.removeprefix(_ACCOUNT)] = _decode(stored, Account)
                    elif stored.subject.startswith(_KEY):
                        found = _decode(stored, Progress)
                        progress[found.name] = found
        return accounts, progress

    async def save_account(self, org: str, account: Account) -> None:
        """Raises Conflict when another gateway has written it since."""
        subject, body = _ACCOUNT + org, msgspec.json.encode(account)
        if subject in self._doubtful:
            stored = await self._bus.last(GATEWAY, subject)
            self._revisions[subject] = 0 if stored is None else stored.sequence
        self._doubtful.add(subject)  # until the server has said that it is stored
        self._revisions[subject] = await self._bus.append(subject, body, expected=self._revisions.get(subject, 0))
        self._doubtful.discard(subject)

    async def save_progress(self, progress: Progress) -> None:
        await self._bus.append(_subject(progress.name), msgspec.json.encode(progress))

    async def drop_progress(self, name: str) -> None:
        await self._bus.purge(GATEWAY, _subject(name))


def _subject(name: str) -> str:
    return _KEY + hashlib.sha256(name.encode()).hexdigest()[:32]


def _decode(stored: Stored, type: type[T]) -> T:
    try:
        return msgspec.json.decode(stored.body, type=type)
    except msgspec.DecodeError as error:
        raise Malformed(f"{stored.subject} in {GATEWAY} cannot be read: {error}") from error
