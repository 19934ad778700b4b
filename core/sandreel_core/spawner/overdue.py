"""An end that cannot be reached in time, said in the log: the intent once more, with what it waits for. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from sandreel_core.contract.session import Destroying, Stopping
from sandreel_core.session import Session

# A sentence, and not all that an engine may say.
MAX_REASON_CHARS = 400


def said_again(session: Session, why: str, at: datetime, within_s: float) -> Stopping | Destroying | None:
    """None: there is time left, or this reason has been said; another one is said behind the time that is given here."""
    waits_for = why[:MAX_REASON_CHARS]
    if session.until is None or session.until > at or session.degraded_reason == waits_for:
        return None
    until = at + timedelta(seconds=within_s)
    if session.phase == "stopping":
        return Stopping(reason=session.stop_reason or "asked", until=until, waits_for=waits_for)
    return Destroying(until=until, waits_for=waits_for) if session.phase == "destroying" else None
