"""What the bridge asks a built-in gateway, over `req.gateway.<org>.<session>.<verb>`. Pure.

verbs: enforce, mint, standing, revoke, live. Where no session is meant it is called `-`, and so is an org.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sandreel_bridge.gateway.port import Dialect, KeyStanding, KeyTerms
from sandreel_core.contract.requests import Reply, Request
from sandreel_core.errors import Malformed
from sandreel_core.ids import check_id, check_org

NOBODY = "-"
Name = Annotated[str, Meta(min_length=1, max_length=512)]


class Enforce(Request, frozen=True, kw_only=True):
    """See `Gateway.enforce`; the subject names the org."""

    dialect: Dialect | None = None


class Enforced(Reply, frozen=True, kw_only=True):
    models: list[str]


class Mint(Request, frozen=True, kw_only=True):
    """`seal`: the asker's public key, for which the value is sealed, so that nobody who listens can read it."""

    name: Name
    terms: KeyTerms
    seal: Annotated[str, Meta(max_length=64)]


class Minted(Reply, frozen=True, kw_only=True):
    sealed: Annotated[str, Meta(max_length=512)]


class Ask(Request, frozen=True, kw_only=True):
    """`standing` and `revoke`."""

    name: Name


class Told(Reply, frozen=True, kw_only=True):
    standing: KeyStanding | None = None


class Live(Request, frozen=True, kw_only=True):
    """A page of the live keys, those whose names come behind `after`."""

    after: str = ""


class LiveKeys(Reply, frozen=True, kw_only=True):
    """At most a thousand; `more` says that there are more."""

    keys: list[KeyStanding]
    more: bool = False


def subject(org: str, session: str, verb: str) -> str:
    return f"req.gateway.{org}.{session}.{verb}"


def places(name: str) -> tuple[str, str]:
    """(org, session) of a key by its name (`port.key_name`). Raises Malformed for what is none."""
    parts = name.split(".")
    if len(parts) != 5:
        raise Malformed(f"{name[:200]!r} is no key's name")
    return check_org(parts[0]), check_id("session", parts[1])
