"""What has to be said about a session's credentials by itself, without a command. Pure.

Called again after every event, and on a timer by every broker: so what one that died has left is done by the next.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sandreel_core.contract import credential as c
from sandreel_core.credential import SESSION, Credentials
from sandreel_core.session import BOOTING, RUNNING, Phase, Session

# Nothing of the session runs any more, and nothing will before it is asked to.
OVER: tuple[Phase, ...] = ("none", "stopped", "failed", "destroyed")
BORN_WITH = "the session was created with it"


def due(
    session: Session, credentials: Credentials, now: datetime, finished: Collection[str] = ()
) -> c.Revoked | c.Granted | None:
    """The next event, None when all is said. `finished`: turns that have ended."""
    if credentials.unreadable:
        return None
    if session.phase in OVER:
        return _end(session, credentials)
    for slug, held in credentials.held.items():
        for turn, grant in held.grants.items():
            if turn in finished or grant.expired(now):
                return c.Revoked(
                    slug=slug,
                    reason="turn_ended" if turn in finished else "expired",
                    ends="one",
                    turn=turn or None,
                    lease_ids=sorted(id for id, out in held.leases.items() if out.turn == turn),
                )
        if late := sorted(id for id, out in held.leases.items() if out.expires_at <= now):
            return c.Revoked(slug=slug, reason="expired", ends="none", lease_ids=late)
    return _birth(session, credentials)


def _end(session: Session, credentials: Credentials) -> c.Revoked | None:
    for slug, held in credentials.held.items():
        stopped = session.phase in ("stopped", "failed")
        return c.Revoked(slug=slug, reason="stopped" if stopped else "destroyed", lease_ids=sorted(held.leases))
    return None


def _birth(session: Session, credentials: Credentials) -> c.Granted | None:
    """What a session was created with is its again at every boot, unless somebody took it back."""
    if session.phase not in (*BOOTING, *RUNNING):
        return None
    for slug in session.grants:
        given = SESSION in credentials.of(slug).grants
        if not given and credentials.withdrawn.get(slug) != session.incarnation:
            return c.Granted(slug=slug, purpose=BORN_WITH, incarnation=session.incarnation)
    return None
