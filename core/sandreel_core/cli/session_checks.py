"""What `sandreel doctor` says of sessions: those of another release's recorder, and those that should have been made or
ended by now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sandreel_core.cli import version_checks
from sandreel_core.cli.check import Check
from sandreel_core.cli.health import span
from sandreel_core.cli.text import clean
from sandreel_core.contract.catalog import CONTRACT_VERSION
from sandreel_core.errors import Denied
from sandreel_core.session import BOOTING, RUNNING, Session

if TYPE_CHECKING:
    from sandreel_core.client import Client, SessionInfo

_NAME = "overdue sessions"
# Sessions named one by one: an engine that is away keeps all of them waiting.
_NAMED = 20
# [spawner] create_timeout_s, and some time for the spawner to say so.
_BOOT_WITHIN = timedelta(seconds=180 + 30)
_MEND = "mend what it waits for: it goes on by itself"
_SILENT = "nobody has said what it waits for"
_LOOK = "look whether the spawner runs (`sandreel health`), and what its log says"


async def checks(client: Client) -> list[Check]:
    """Raises Unavailable."""
    try:
        found = await client.sessions(None)
    except Denied:
        return [Check(name="sessions", level="ok", found="not looked at: this user sees one organisation alone")]
    running = [info for info in found if info.state.phase in RUNNING]
    return [*version_checks.judge(running, CONTRACT_VERSION), *overdue(found, datetime.now(UTC))]


def overdue(found: Sequence[SessionInfo], at: datetime) -> list[Check]:
    """Those that are neither made nor ended in time. Pure."""
    late = [info for info in found if _is_late(info.state, at)]
    if not late:
        return [Check(name=_NAME, level="ok", found="none: what was to be made or ended is")]
    told = [_check(info, at) for info in late[:_NAMED]]
    if len(late) > _NAMED:
        told.append(Check(name=_NAME, level="fail", found=f"and {len(late) - _NAMED} more", mend=_MEND))
    return told


def _is_late(state: Session, at: datetime) -> bool:
    if state.phase in ("stopping", "destroying"):
        # It was said once that it takes longer, with a new time: it is late all the same.
        return bool(state.degraded_reason) or (state.until is not None and state.until < at)
    return state.phase in BOOTING and state.changed_at is not None and at - state.changed_at > _BOOT_WITHIN


def _check(info: SessionInfo, at: datetime) -> Check:
    state = info.state
    since_s = (at - state.changed_at).total_seconds() if state.changed_at is not None else 0.0
    why = state.degraded_reason
    found = f"{state.phase} for {span(since_s)}; {f'it waits: {why}' if why else _SILENT}"
    name = clean(f"{_NAME}, {info.org}/{info.session}")
    return Check(name=name, level="fail", found=clean(found), mend=_MEND if why else _LOOK)
