"""Messages about credentials. Never a value: names, fingerprints, leases and purposes only."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from sandreel_core.contract.message import Command, Count, Event, Id, Instant, Ordinal, Sentence
from sandreel_core.contract.session import Slug

Purpose = Annotated[str, Meta(max_length=256)]
Program = Annotated[str, Meta(max_length=256)]


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
    """No further leases by this one grant, the session's or a turn's; those that are out stand until they expire."""

    type: ClassVar[str] = "credential.ungrant"
    turn: Id | None = None


class Revoke(CredentialCommand, frozen=True, kw_only=True):
    """No further leases by any grant of the credential, and those that are out end now."""

    type: ClassVar[str] = "credential.revoke"


class CredentialEvent(Event, frozen=True, kw_only=True):
    aggregate: ClassVar[str] = "credential"
    slug: str


class Granted(CredentialEvent, frozen=True, kw_only=True):
    """`incarnation`: the session's, where it was created with this grant and nobody sent a command for it."""

    type: ClassVar[str] = "credential.granted"
    turn: str | None = None
    purpose: Purpose | None = None
    expires_at: Instant | None = None
    incarnation: Ordinal | None = None


class Leased(CredentialEvent, frozen=True, kw_only=True):
    """Appended before the value is sent. `fingerprint` is keyed: it cannot be guessed from a weak value.

    version   of the stored value, or of what a token was minted with
    turn      whose grant it is by; None: the session's
    exec, pid, program  who asked, as runnerd saw it: `program` is the argv[0] of the process and of those above it,
              nearest first. Processes of one session run as one user, so this is for people and proves nothing
    injected  given to a whole exec as a variable: it cannot be un-known before that ends
    minted    a token made for this lease, which its revocation ends where it was made
    resource  what such a token is limited to
    """

    type: ClassVar[str] = "credential.leased"
    lease_id: str
    fingerprint: str
    purpose: Purpose
    expires_at: Instant
    version: Ordinal | None = None
    turn: str | None = None
    exec: str | None = None
    pid: Ordinal | None = None
    program: Program | None = None
    injected: bool = False
    minted: bool = False
    resource: Purpose | None = None


class LeaseRefused(CredentialEvent, frozen=True, kw_only=True):
    """`unsaid`: how many of the same credential and code came before it, of which the log holds no event of their own."""

    type: ClassVar[str] = "credential.refused"
    code: str
    message: Sentence
    purpose: Purpose | None = None
    exec: str | None = None
    pid: Ordinal | None = None
    program: Program | None = None
    unsaid: Count = 0


class Revoked(CredentialEvent, frozen=True, kw_only=True):
    """These leases have ended, and so have grants of the credential: `all` of them, the `one` of `turn` (None: the
    session's), or `none`. `incarnation`: the session's, where it was created with this grant and is not to get it again in that
    life, whether it held it just then or not."""

    type: ClassVar[str] = "credential.revoked"
    lease_ids: list[str] = []
    reason: Literal["asked", "ungranted", "stopped", "destroyed", "turn_ended", "expired"] = "asked"
    ends: Literal["all", "one", "none"] = "all"
    turn: str | None = None
    incarnation: Ordinal | None = None


class Outlived(CredentialEvent, frozen=True, kw_only=True):
    """A minted token whose lease has ended, and which its issuer has not ended in several tries: it may work until
    `expires_at`. The tries go on; that one of them came through is in the vault's audit."""

    type: ClassVar[str] = "credential.outlived"
    lease_id: str
    expires_at: Instant
