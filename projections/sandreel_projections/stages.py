"""From a session's row before and after an event to one row of `reel.session_stages`: a stage that has ended. Pure.

The stage that a session is in now stands in its own row of `reel.sessions`; the view `reel.session_timeline` joins both.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sandreel_projections.change import Change
from sandreel_projections.sessions import SessionRow, fold

# In the order of the columns of `reel.session_stages`.
Stage = tuple[str, str, int, int, int, str, str | None, datetime, datetime, int, str, str, str]


def step(before: SessionRow | None, change: Change) -> tuple[SessionRow | None, Stage | None, str]:
    """One event: the session's row, and the stage that it has ended (see `source.Step`)."""
    after = fold(before, change)
    return after, ended(before, after), ""


def ended(before: SessionRow | None, after: SessionRow | None) -> Stage | None:
    """The stage that this event has ended; None when it has ended none. Times are the stream server's."""
    if before is None or after is None or after.stage == before.stage or after.incarnation != before.incarnation:
        return None
    began, end = before.stage_began_at, after.stage_began_at
    return (
        before.org,
        before.session,
        before.incarnation,
        before.stage,
        before.boot,
        before.phase,
        detail(before),
        began,
        end,
        (end - began) // timedelta(milliseconds=1),
        after.phase,
        before.stage_cursor,
        after.stage_cursor,
    )


def detail(row: SessionRow) -> str | None:
    """Why it is in this stage, where the log says so; `reel.session_timeline` says the same of the present stage."""
    match row.phase:
        case "stopping" | "stopped":
            return row.stop_reason
        case "degraded":
            return row.degraded_reason
        case "failed":
            return f"{row.failure_stage}: {row.failure_code}: {row.failure_message}"
    return None
