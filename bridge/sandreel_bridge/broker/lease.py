"""Whether a lease may be had, and what the log says of it. Pure.

Asked twice for every lease: before the vault is, and again on whatever state the append expects, so that a revocation and a
lease exclude each other.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

from sandreel_core.credential import SESSION, Credentials
from sandreel_core.errors import Refused
from sandreel_core.session import RUNNING, Session
from sandreel_core.turn import exec_of

# What a git operation or a call of `gh` takes at most, with room; a program that has the value may keep it anyway.
LEASE_S = 300.0
# A turn whose program ends without a word is tried once more (behaviour §4.6); with room.
_MAX_ATTEMPTS = 8


class Asker(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who asks, as the session's runnerd says. `boot_id` None: a runnerd that does not say it."""

    exec: str
    boot_id: str | None = None
    pid: int | None = None
    program: str | None = None
    purpose: str = ""
    injected: bool = False


def check_session(session: Session, boot_id: str | None) -> None:
    """Raises Refused: SESSION_NOT_READY, BOOT_OVER, NO_KEY."""
    if session.phase not in RUNNING:
        raise Refused("SESSION_NOT_READY", f"the session is {session.phase}: only one that runs gets a lease")
    if boot_id is not None and boot_id != session.boot_id:
        raise Refused("BOOT_OVER", "this boot of the session is over")
    if not session.public_keys.get("seal"):
        raise Refused("NO_KEY", "the session has no key that a value could be sealed for")


def grant_for(credentials: Credentials, slug: str, exec: str, now: datetime) -> str:
    """By whose grant (`SESSION`, or a turn) the exec may have a lease. Raises Refused: NEWER_CONTRACT, NOT_GRANTED, EXPIRED."""
    if credentials.unreadable:
        raise Refused("NEWER_CONTRACT", f"the log holds {credentials.unreadable}, which this broker cannot read")
    grants = credentials.of(slug).grants
    turn = next((turn for turn in grants if turn != SESSION and is_of(exec, turn)), None)
    mine = [each for each in (turn, SESSION) if each is not None and each in grants]
    for each in mine:
        if not grants[each].expired(now):
            return each
    if mine:
        raise Refused("EXPIRED", f"the grant of {slug} has expired")
    raise Refused("NOT_GRANTED", f"no grant of {slug} stands for this exec")


def is_of(exec: str, turn: str) -> bool:
    """Whether an exec is one of the turn's attempts."""
    return any(exec == exec_of(turn, attempt) for attempt in range(1, _MAX_ATTEMPTS + 1))


def ends_at(
    credentials: Credentials, session: Session, slug: str, turn: str, now: datetime, *, injected: bool, lease_s: float
) -> datetime:
    """When a lease that begins now is over: after one operation's time; for what a whole exec was given, with the grant
    or the session."""
    limits = [credentials.of(slug).grants[turn].expires_at]
    if injected:
        limits.append(session.expires_at if session.expires_at is not None and session.expires_at > now else None)
        latest = now + timedelta(seconds=max(session.ttl_s, lease_s))
    else:
        latest = now + timedelta(seconds=lease_s)
    return min([latest, *(limit for limit in limits if limit is not None)])
