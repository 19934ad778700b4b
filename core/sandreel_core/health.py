"""How a role is: ok, degraded (it goes on with less) or failing (it does not do its work). Pure; the clock is given.

Reasons are constant sentences without ids, addresses or what somebody else said: whoever reaches the endpoint reads
them, also a job in a session. The role's log holds the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

Status = Literal["ok", "degraded", "failing"]
STATUSES: tuple[Status, ...] = ("ok", "degraded", "failing")

# Longer than a restart of NATS or Postgres (some seconds): what lasts longer does not pass by itself.
FAILS_AFTER_S = 60.0


class Reason(Struct, frozen=True, kw_only=True):
    """What is wrong with which part of the role, and for how long."""

    part: str
    status: Status
    text: str
    for_s: float


class Report(Struct, frozen=True, kw_only=True):
    """The body of `/healthz`. `uptime_s` is since the process began."""

    role: str
    status: Status
    version: str
    pid: int
    uptime_s: float
    reasons: tuple[Reason, ...] = ()


class _Trouble(Struct, frozen=True, kw_only=True):
    text: str
    since: float
    fails_after_s: float | None


class Health:
    """Told by the role's parts, asked by the endpoint. A role that has not said that it serves is failing."""

    def __init__(self, role: str, *, version: str, pid: int, monotonic: Callable[[], float]) -> None:
        self._role = role
        self._version = version
        self._pid = pid
        self._monotonic = monotonic
        self._began = monotonic()
        self._troubles: dict[str, _Trouble] = {}
        self.trouble("start", "the role is starting", fails_after_s=0)

    def ready(self) -> None:
        """The role serves now."""
        self.well("start")

    def trouble(self, part: str, text: str, *, fails_after_s: float | None = FAILS_AFTER_S) -> None:
        """`part` is not in order, since now or since this was said first. Degraded, and failing once it has lasted
        `fails_after_s` (None: never)."""
        before = self._troubles.get(part)
        since = self._monotonic() if before is None else before.since
        self._troubles[part] = _Trouble(text=text, since=since, fails_after_s=fails_after_s)

    def well(self, part: str) -> None:
        """`part` is in order (again)."""
        self._troubles.pop(part, None)

    def report(self) -> Report:
        moment = self._monotonic()
        reasons = tuple(_reason(part, trouble, moment) for part, trouble in sorted(self._troubles.items()))
        status = max((reason.status for reason in reasons), key=STATUSES.index, default=STATUSES[0])
        return Report(
            role=self._role,
            status=status,
            version=self._version,
            pid=self._pid,
            uptime_s=round(moment - self._began, 3),
            reasons=reasons,
        )


def _reason(part: str, trouble: _Trouble, moment: float) -> Reason:
    for_s = moment - trouble.since
    failing = trouble.fails_after_s is not None and for_s >= trouble.fails_after_s
    return Reason(part=part, status="failing" if failing else "degraded", text=trouble.text, for_s=round(for_s, 3))
