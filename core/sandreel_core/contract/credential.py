"""Messages about credentials. Never a value: names, fingerprints, leases and purposes only."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from sandreel_core.contract.message import Command, Event, Id, Instant, Sentence
from sandreel_core.contract.session import Slug

Purpose = Annotated[str, Meta(max_length=256)]


class CredentialCommand(Command, frozen=True, kw_only=True):
    aggregate: ClassVar[str] = "credential"
    role: ClassVar[str] = "broker"
    slug: Slug


class Grant(CredentialCommand, frozen=True, kw_only=True):
    """Let the session, or one turn of it, ask for the credential."""

    type: ClassVar[str] = "credential.grant"
    turn: Id | None = None
    purpose: Purpose | None = None
    expires_at: Instant | None = None


class Ungrant(CredentialCommand, frozen=True, kw_only=True):
    """No further leases; those that are out stand until they expire."""

    type: ClassVar[str] = "credential.ungrant"
    turn: Id | None = None


class Revoke(CredentialCommand, frozen=True, kw_only=True):
    """No further leases, and those that are out end now."""

    type: ClassVar[str] = "credential.revoke"


class CredentialEvent(Event, frozen=True, kw_only=True):
    aggregate: ClassVar[str] = "credential"
    slug: str


class Granted(CredentialEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "credential.granted"
    turn: str | None = None
    purpose: Purpose | None = None
    expires_at: Instant | None = None


class Leased(CredentialEvent, frozen=True, kw_only=True):
    """Appended before the value is sent. `fingerprint` is keyed: it cannot be guessed from a weak value."""

    type: ClassVar[str] = "credential.leased"
    lease_id: str
    fingerprint: str
    purpose: Purpose
    expires_at: Instant


class LeaseRefused(CredentialEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "credential.refused"
    code: str
    message: Sentence
    purpose: Purpose | None = None


class Revoked(CredentialEvent, frozen=True, kw_only=True):
    type: ClassVar[str] = "credential.revoked"
    lease_ids: list[str] = []
    reason: Literal["asked", "ungranted", "stopped", "destroyed", "turn_ended", "expired"] = "asked"
