"""From an event about a credential to its row of `reel.credential_log`, of which the views `reel.credentials` and
`reel.credential_audit` are made. Pure and total. No event holds a value, and neither does this."""

from __future__ import annotations

from typing import Any

from sandreel_core.contract import credential as c
from sandreel_projections.change import Change, aware, bigint, integer, text, texts

_MAX_NAME_CHARS = 1024

# In the order of the columns of `reel.credential_log`.
Record = tuple[Any, ...]


def record(change: Change) -> Record | None:
    """None for what is no event about a credential, and for what this version cannot read, which is in the audit log."""
    where, data, event = change.where, change.data, change.envelope
    if not isinstance(data, c.CredentialEvent):
        return None
    lease = data if isinstance(data, c.Leased) else None
    refusal = data if isinstance(data, c.LeaseRefused) else None
    revoked = data if isinstance(data, c.Revoked) else None
    outlived = data if isinstance(data, c.Outlived) else None
    asked, of_lease = lease or refusal, lease or outlived
    return (
        where.org,
        where.session,
        where.partition,
        change.sequence,
        data.type.removeprefix("credential."),
        _name(data.slug),
        _name(getattr(data, "turn", None)),
        _name(of_lease.lease_id) if of_lease else None,
        texts(revoked.lease_ids) if revoked else None,
        _name(lease.fingerprint) if lease else None,
        integer(lease.version) if lease else None,
        text(getattr(data, "purpose", None)),
        _name(asked.exec) if asked else None,
        bigint(asked.pid) if asked else None,
        text(asked.program) if asked else None,
        lease.injected if lease else None,
        lease.minted if lease else None,
        text(lease.resource) if lease else None,
        getattr(data, "expires_at", None),
        _name(refusal.code) if refusal else None,
        text(refusal.message) if refusal else None,
        bigint(refusal.unsaid) if refusal else 0,
        revoked.reason if revoked else None,
        revoked.ends if revoked else None,
        integer(data.incarnation) if isinstance(data, c.Granted) else None,
        _name(event.actor),
        _name(event.causationid),
        change.at,
        aware(event.time),
        change.cursor,
    )


def _name(value: str | None) -> str | None:
    return None if value is None else text(value[:_MAX_NAME_CHARS])
