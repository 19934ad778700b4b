"""Where the gateway keeps its accounts and keys: documents in one small stream, of which the newest of each subject counts.

`gateway.owner`           the boot of the one gateway that writes them
`gateway.account.<org>`   the org's `Account`
`gateway.users.<org>.<part>`  what some of its users have spent (`Users`)
`gateway.key.<digest>`    a live key's `Progress`
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from sandreel_bridge.gateway.account import Account
from sandreel_bridge.gateway.earlier import EarlierAccount
from sandreel_bridge.gateway.purse import Progress
from sandreel_bridge.gateway.users import Users
from sandreel_core.bus.kept import kept
from sandreel_core.bus.port import Bus, Stored, Stream
from sandreel_core.errors import Conflict, Malformed

GATEWAY = "GATEWAY"
# An account is some hundred keys of half a KiB, a live key's progress one, a user 60 bytes.
MAX_BYTES = 256 << 20
_OWNER, _ACCOUNT, _USERS, _KEY = "gateway.owner", "gateway.account.", "gateway.users.", "gateway.key."
T = TypeVar("T", bound=Struct)


def documents(*, replicas: int = 1) -> Stream:
    return Stream(name=GATEWAY, subjects=("gateway.>",), max_bytes=MAX_BYTES, per_subject=1, replicas=replicas)


class Owner(Struct, frozen=True):
    boot_id: str


class Loaded(NamedTuple):
    """Accounts by org, users by (org, part), progress by the name of the key."""

    accounts: dict[str, Account]
    users: dict[tuple[str, str], Users]
    progress: dict[str, Progress]


class Store:
    """Every method raises Unavailable."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._boot_id: str | None = None
        self._revisions: dict[str, int] = {}
        self._doubtful: set[str] = set()

    async def take(self, boot_id: str) -> None:
        """Be the one that writes, from now on."""
        await self._bus.append(_OWNER, msgspec.json.encode(Owner(boot_id)))
        self._boot_id = boot_id

    async def owner(self) -> str | None:
        stored = await self._bus.last(GATEWAY, _OWNER)
        return None if stored is None else _decode(stored, Owner).boot_id

    @property
    def max_bytes(self) -> int:
        """That a document may have."""
        return self._bus.max_payload

    async def load(self) -> Loaded:
        """Raises Malformed for a document that cannot be read: a gateway that has forgotten what was spent must not serve. What an
        earlier version has written is written anew."""
        found, earlier = Loaded({}, {}, {}), dict[str, EarlierAccount]()
        async with kept(self._bus, GATEWAY, ["gateway.>"]) as messages:
            async for stored in messages:
                self._read(stored, found, earlier)
        for org, before in earlier.items():
            for part, users in before.users.items():
                await self.save_users(org, part, users)
                found.users[org, part] = users
            await self.save_account(org, before.account)
            found.accounts[org] = before.account
        return found

    def _read(self, stored: Stored, found: Loaded, earlier: dict[str, EarlierAccount]) -> None:
        subject = stored.subject
        if subject.startswith((_ACCOUNT, _USERS)):
            self._revisions[subject] = stored.sequence
        if subject.startswith(_ACCOUNT):
            org = subject.removeprefix(_ACCOUNT)
            try:
                found.accounts[org] = msgspec.json.decode(stored.body, type=Account)
            except msgspec.ValidationError:
                earlier[org] = _decode(stored, EarlierAccount)
        elif subject.startswith(_USERS):
            org, _, part = subject.removeprefix(_USERS).partition(".")
            found.users[org, part] = _decode(stored, Users)
        elif subject.startswith(_KEY):
            progress = _decode(stored, Progress)
            found.progress[progress.name] = progress

    async def save_account(self, org: str, account: Account) -> None:
        """Raises Conflict when another gateway has written it since, TooLarge."""
        await self._save(_ACCOUNT + org, account)

    async def save_users(self, org: str, part: str, users: Users) -> None:
        """Raises as `save_account`."""
        await self._save(f"{_USERS}{org}.{part}", users)

    async def _save(self, subject: str, document: Struct) -> None:
        if subject in self._doubtful:
            # It may be what we have written and were not told of; but not where another gateway writes by now.
            if await self.owner() != self._boot_id:
                raise Conflict(f"another gateway writes {subject}")
            stored = await self._bus.last(GATEWAY, subject)
            self._revisions[subject] = 0 if stored is None else stored.sequence
        self._doubtful.add(subject)  # until the server has said that it is stored
        body = msgspec.json.encode(document)
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
