"""Who a connection is: a user with a password, or a NATS user JWT with its key; asked for anew at every connection."""

from __future__ import annotations

import base64
from typing import Any, Protocol

from sandreel_core import jwt
from sandreel_core.contract.subjects import DOOR, FEED, JETSTREAM, PULL
from sandreel_core.errors import Malformed, Misconfigured
from sandreel_core.keys import Key


class Login(Protocol):
    """What `Connection` needs to know."""

    @property
    def name(self) -> str:
        """For an error that says who was turned away."""

    @property
    def inbox_prefix(self) -> str:
        """Below which its answers arrive; no other user may listen there."""

    @property
    def api(self) -> str:
        """The subject below which it asks JetStream."""

    def pull(self, stream: str, consumer: str) -> str:
        """The subject at which it asks a consumer for messages."""

    def options(self) -> dict[str, Any]:
        """For nats-py's `connect`."""


class Identity(Protocol):
    """Gives a login whenever a connection is made; may wait until there is one."""

    async def login(self) -> Login: ...


class Password:
    """A user of a server without operator mode."""

    def __init__(self, user: str | None = None, password: str | None = None) -> None:
        self._user = user
        self._password = password

    @property
    def name(self) -> str:
        return self._user or "(none)"

    @property
    def inbox_prefix(self) -> str:
        return "_INBOX"

    @property
    def api(self) -> str:
        return JETSTREAM

    def pull(self, stream: str, consumer: str) -> str:
        return f"{JETSTREAM}.CONSUMER.MSG.NEXT.{stream}.{consumer}"

    def options(self) -> dict[str, Any]:
        return {"user": self._user, "password": self._password}

    async def login(self) -> Login:
        return self


class Creds:
    """A user JWT and the key that it names. Its inboxes are below its own public key (`permissions.INBOX`)."""

    def __init__(self, token: str, key: Key) -> None:
        """Raises Malformed."""
        self.claims = jwt.claims_of(token)
        self._allowed = frozenset(self.claims.get("nats", {}).get("pub", {}).get("allow", ()))
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

    @property
    def api(self) -> str:
        """JetStream's own, or the door to it of an organisation (`permissions.FOLLOW`)."""
        doors = [subject for subject in self._allowed if subject.startswith(f"{DOOR}.") and subject.endswith(".>")]
        return doors[0].removesuffix(".>") if doors else JETSTREAM

    def pull(self, stream: str, consumer: str) -> str:
        """JetStream's own, or the name that it has in an account that only imports it."""
        if f"{FEED}.{consumer}" in self._allowed:
            return f"{FEED}.{consumer}"
        if f"{PULL}.*.*" in self._allowed:
            return f"{PULL}.{stream}.{consumer}"
        return f"{JETSTREAM}.CONSUMER.MSG.NEXT.{stream}.{consumer}"

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
