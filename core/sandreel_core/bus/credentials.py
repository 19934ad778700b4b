"""Who a connection is: a user with a password, or a NATS user JWT with its key; asked for anew at every connection."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Protocol

from sandreel_core import jwt
from sandreel_core.errors import Malformed, Misconfigured
from sandreel_core.keys import Key
from sandreel_core.permissions import FEED


class Login(Protocol):
    """What `Connection` needs to know."""

    @property
    def name(self) -> str:
        """For an error that says who was turned away."""

    @property
    def inbox_prefix(self) -> str:
        """Below which its answers arrive; no other user may listen there."""

    def feed_subject(self, name: str) -> str | None:
        """Where it pulls from a feed, if not from JetStream itself."""

    def options(self) -> dict[str, Any]:
        """For nats-py's `connect`."""


class Identity(Protocol):
    """Gives a login whenever a connection is made; may wait until there is one."""

    async def login(self) -> Login: ...


@dataclass(frozen=True, slots=True, repr=False)
class Password:
    """A user of a server without operator mode."""

    user: str | None = None
    password: str | None = None

    @property
    def name(self) -> str:
        return self.user or "(none)"

    @property
    def inbox_prefix(self) -> str:
        return "_INBOX"

    def feed_subject(self, name: str) -> str | None:
        return None

    def options(self) -> dict[str, Any]:
        return {"user": self.user, "password": self.password}

    async def login(self) -> Login:
        return self


class Creds:
    """A user JWT and the key that it names. Its inboxes are below its own public key (`permissions.INBOX`)."""

    def __init__(self, token: str, key: Key) -> None:
        """Raises Malformed."""
        self.claims = jwt.claims_of(token)
        self._token = token
        self._key = key

    @classmethod
    def parse(cls, text: str) -> Creds:
        """The text of a .creds file. Raises Malformed, with nothing of it."""
        token, seed = jwt.parse_creds(text)
        return cls(token, Key(seed))

    @property
    def name(self) -> str:
        return str(self.claims.get("name", "")) or self._key.public

    @property
    def inbox_prefix(self) -> str:
        return f"_INBOX.{self._key.public}"

    def feed_subject(self, name: str) -> str | None:
        local = f"{FEED}.{name}"
        return local if local in self.claims["nats"].get("pub", {}).get("allow", ()) else None

    def options(self) -> dict[str, Any]:
        def sign(nonce: str) -> bytes:
            return base64.b64encode(self._key.sign(nonce.encode()))

        return {"user_jwt_cb": lambda: bytearray(self._token.encode()), "signature_cb": sign}

    async def login(self) -> Login:
        return self


class Said(Protocol):
    """What settings say of it (`settings.Bus` is one)."""

    @property
    def creds(self) -> str | None: ...
    @property
    def user(self) -> str | None: ...
    @property
    def password(self) -> str | None: ...


def identity_of(said: Said) -> Password | Creds:
    """Who the settings say that we are; credentials count for more than a password. Raises Misconfigured."""
    if not said.creds:
        return Password(said.user, said.password)
    try:
        return Creds.parse(said.creds)
    except Malformed as error:
        raise Misconfigured(f"[bus] creds: {error}") from None
