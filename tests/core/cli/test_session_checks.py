"""What doctor says of sessions that should have been made or ended by now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sandreel_core.cli.session_checks import overdue
from sandreel_core.client import SessionInfo
from sandreel_core.contract.cursor import Cursor
from sandreel_core.session import Session

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def info(phase: str, *, since_s: float, until_s: float | None = None, why: str = "") -> SessionInfo:
    """`until_s` from now."""
    until = None if until_s is None else NOW + timedelta(seconds=until_s)
    changed_at = NOW - timedelta(seconds=since_s)
    state = Session(phase=phase, changed_at=changed_at, until=until, degraded_reason=why)  # type: ignore[arg-type]
    return SessionInfo("acme", "one", state, Cursor("e", 0, 1))


@pytest.mark.parametrize(
    ("known", "found", "mend"),
    [
        (info("stopping", since_s=5, until_s=55), None, ""),
        (info("stopping", since_s=90, until_s=-30), "stopping for 2 min; nobody has said what it waits for", "health"),
        (
            info("stopping", since_s=70, until_s=50, why="no engine"),
            "stopping for 70 s; it waits: no engine",
            "goes on",
        ),
        (info("destroying", since_s=7200, until_s=-9, why="a\x1bb"), "destroying for 2.0 h; it waits: a", "goes on"),
        (info("requested", since_s=100), None, ""),
        (info("provisioning", since_s=300), "provisioning for 5 min; nobody has said", "log"),
        (info("degraded", since_s=900, why="no heartbeat"), None, ""),
        (info("stopped", since_s=900), None, ""),
    ],
)
def test_what_is_late_is_named_with_why(known: SessionInfo, found: str | None, mend: str) -> None:
    (check,) = overdue([known], NOW)
    if found is None:
        assert check.level == "ok"
    else:
        assert (check.level, check.name) == ("fail", "overdue sessions, acme/one")
        assert check.found.startswith(found)
        assert "\x1b" not in check.found
        assert mend in check.mend


def test_of_many_only_some_are_named() -> None:
    late = info("stopping", since_s=90, until_s=-30)
    checks = overdue([late] * 30, NOW)
    assert (len(checks), checks[-1].found) == (21, "and 10 more")
