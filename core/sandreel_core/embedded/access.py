"""What services of organisations were given: credentials that are handed out once, listed, and taken back. Blocking.

One file each in `identity/access/`, without the private key: it is in the .creds file that was written, and nowhere else.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
from msgspec import Struct

from sandreel_core import jwt
from sandreel_core import permissions as p
from sandreel_core.contract.message import Id, Org
from sandreel_core.embedded.authority import Authority
from sandreel_core.embedded.secret_file import write_secret
from sandreel_core.errors import AlreadyExists, Misconfigured, NotFound
from sandreel_core.keys import Key, new_key


class Access(Struct, frozen=True, kw_only=True):
    """`public` is the user's public key; times are Unix seconds."""

    name: Id
    org: Org
    can: list[p.Right]
    public: str
    created_at_s: int
    expires_at_s: int | None = None

    @property
    def expired(self) -> bool:
        return self.expires_at_s is not None and self.expires_at_s <= time.time()


class AccessList:
    """Everything that was given and not taken back."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._directory = authority.directory / "access"

    def all(self) -> list[Access]:
        """By name. Raises Misconfigured."""
        return [self._read(path) for path in sorted(self._directory.glob("*.json"))]

    def create(self, name: str, org: str, rights: list[p.Right], *, lasts_s: float | None = None) -> tuple[Access, str]:
        """(what was given, the text of its .creds file). `name` and `org` were checked. Raises AlreadyExists,
        Misconfigured."""
        path = self._path(name)
        if path.exists():
            raise AlreadyExists(f"there is an access {name} already: take it back with `sandreel access rm {name}`")
        now_s = int(time.time())
        key: Key = new_key("user")
        expires_at_s = None if lasts_s is None else now_s + max(1, int(lasts_s))
        user = p.platform(rights).at(org=org, key=key.public)
        token = self._authority.issue(user, key, name=f"{org}:{name}", expires_at_s=expires_at_s)
        access = Access(
            name=name, org=org, can=rights, public=key.public, created_at_s=now_s, expires_at_s=expires_at_s
        )
        self._directory.mkdir(mode=0o700, exist_ok=True)
        write_secret(path, msgspec.json.encode(access).decode())
        return access, jwt.creds(token, key.seed)

    def remove(self, name: str) -> tuple[Access, str]:
        """(what was taken back, the new JWT of its account, which the server has to hear of). Raises NotFound."""
        path = self._path(name)
        if not path.exists():
            raise NotFound(f"there is no access {name}: `sandreel access ls` shows them")
        access = self._read(path)
        account = self._authority.revoke("PLATFORM", access.public)
        path.unlink()
        return access, account

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _read(self, path: Path) -> Access:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Access)
        except (OSError, msgspec.DecodeError):
            raise Misconfigured(f"{path} cannot be read: restore it, or delete it and give the access again") from None
