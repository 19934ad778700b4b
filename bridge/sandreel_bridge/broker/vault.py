"""What the broker needs of a vault. Postgres' rows are the first (`postgres.py`); the verbs are those of HashiCorp Vault's and
OpenBao's KV version 2 (versions, metadata beside the value, deletion that keeps the metadata), so that one fits behind them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from msgspec import Struct

from sandreel_core.contract.secret import MAX_SECRET_BYTES
from sandreel_core.errors import SandreelError

# What is sealed for a session holds as much (`secret.MAX_SECRET_BYTES`).
MAX_VALUE_BYTES = MAX_SECRET_BYTES
# Of one credential, the newest; KV version 2 keeps as many unless it is told otherwise (max_versions).
KEPT_VERSIONS = 10
MAX_OPTIONS = 16
MAX_OPTION_CHARS = 1024


class Unreadable(SandreelError):
    """The vault has the value, and cannot open it: another key sealed it, or somebody has changed it."""


class Name(NamedTuple):
    org: str
    slug: str

    def __str__(self) -> str:
        return f"{self.org}/{self.slug}"


class Entry(Struct, frozen=True, kw_only=True):
    """Everything about one version of a credential but its value. `options` are the recipe's, and public."""

    name: Name
    version: int
    recipe: str
    options: Mapping[str, str]
    fingerprint: str
    created_at: datetime
    created_by: str


class Opened(Struct, frozen=True, kw_only=True):
    """An entry with its value."""

    entry: Entry
    value: bytes

    def __repr__(self) -> str:
        """Without the value: structs end up in tracebacks."""
        return f"Opened({self.entry.name}, version {self.entry.version})"


class Reader(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who reads, and what for: what the audit says of it."""

    by: str
    session: str | None = None
    lease: str | None = None
    purpose: str = ""


# The last two are of minted tokens: ended by their issuer, or by themselves after that was tried in vain.
Action = Literal["put", "read", "unreadable", "deleted", "rewrapped", "ended", "outlived"]


class Note(Struct, frozen=True, kw_only=True):
    """One line of the vault's audit."""

    id: int
    at: datetime
    name: Name
    version: int | None
    action: Action
    reader: Reader


class Vault(Protocol):
    """Every method raises Unavailable when the vault cannot be asked now. What is done and its line in the audit are one."""

    async def put(self, name: Name, value: bytes, *, recipe: str, options: Mapping[str, str], by: str) -> Entry:
        """A new version, which counts from now on; at most `KEPT_VERSIONS` stay."""

    async def entries(self, org: str | None, slugs: Collection[str] | None = None) -> list[Entry]:
        """The newest version of each (None: of all), by name; no value is opened."""

    async def read(self, name: Name, reader: Reader) -> Opened:
        """The newest version. Raises NotFound, Unreadable."""

    async def fingerprint(self, org: str, value: bytes) -> str:
        """16 hexadecimal digits that are the same for the same value in the same org, and tell nothing without the
        vault's own key."""

    async def delete(self, name: Name, *, by: str) -> int:
        """Every version's value; how many there were. The metadata stays. Raises NotFound."""

    async def notes(self, org: str | None, slug: str | None = None, *, limit: int = 100) -> Sequence[Note]:
        """The newest lines of the audit, the newest last."""
