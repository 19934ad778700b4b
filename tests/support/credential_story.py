"""What a session did with a credential: its own grant and a turn's, three leases, a refusal, and how each of them ended."""

from __future__ import annotations

from datetime import UTC, datetime

from sandreel_core.contract import credential as c

SOON = datetime(2126, 11, 24, 4, 0, tzinfo=UTC)
PAST = datetime(2020, 1, 1, tzinfo=UTC)
GRANT = c.Grant(slug="github", turn="t-1", purpose="push the fix")


def leased(lease_id: str, *, turn: str | None = None, expires_at: datetime = SOON, slug: str = "github") -> c.Leased:
    return c.Leased(
        slug=slug,
        lease_id=lease_id,
        fingerprint="f-1",
        purpose="git push",
        expires_at=expires_at,
        version=3,
        turn=turn,
        exec="t-1-1",
        pid=77,
        program="git-credential-sandreel < git",
    )


EVENTS: tuple[c.CredentialEvent, ...] = (
    c.Granted(slug="github", purpose="the session was created with it", incarnation=1),
    c.Granted(slug="github", turn="t-1", purpose="push the fix"),
    leased("l-1", turn="t-1"),
    leased("l-2"),
    c.LeaseRefused(slug="npm", code="NO_GRANT", message="there is no grant", purpose="npm publish", unsaid=4),
    c.Revoked(slug="github", lease_ids=["l-1"], reason="turn_ended", ends="one", turn="t-1"),
    leased("l-3", expires_at=PAST),
    c.Granted(slug="github", purpose="on other terms", expires_at=SOON),
    leased("l-4"),
    c.Revoked(slug="github", lease_ids=["l-2", "l-4"], reason="asked"),
    c.Granted(slug="github", turn="t-2"),
    leased("l-5", turn="t-2"),
    c.Granted(slug="npm", expires_at=PAST),
    c.Outlived(slug="github", lease_id="l-2", expires_at=SOON),
)
