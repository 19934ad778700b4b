"""Turns by the handful: events of one turn's subject, and the fold of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as c
from sandreel_core.contract.codec import seal
from sandreel_core.contract.message import Envelope, Event, Owner
from sandreel_core.contract.session import CommandRefused
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.turn import Turn, fold

AT = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)
ME, OTHER = "/bridge/here/one", "/bridge/here/two"
SUBJECTS = SessionSubjects("acme", "s1")
OWNER = Owner(type="user", id="u1")
EXEC = "t1-1"


def said(event: Event, *, source: str = ME, command: str | None = None, second: int = 0) -> Envelope:
    """As it stands on the turn's subject. `command`: it answers one."""
    return seal(
        event,
        id=f"{event.type}-{second}",
        source=source,
        subject=SUBJECTS.event("turn", "t1"),
        time=AT + timedelta(seconds=second),
        causationid=command,
    )


def folded(*events: Event | Envelope, turn: Turn = Turn()) -> Turn:  # noqa: B008 - it is frozen
    for event in events:
        turn = fold(turn, event if isinstance(event, Envelope) else said(event, command=_command(event)))
    return turn


def _command(event: Event) -> str | None:
    by_command = c.TurnRequested | c.SteerQueued | c.TurnInterrupting | c.PlanApproved | c.PlanRejected | CommandRefused
    return "c1" if isinstance(event, by_command) else None


def _with(fields: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    return defaults | fields


def requested(**fields: Any) -> c.TurnRequested:
    return c.TurnRequested(**_with(fields, agent="claude-code", prompt="hi", conversation_id="t1", owner=OWNER))


def preparing(attempt: int = 1, **fields: Any) -> c.TurnPreparing:
    return c.TurnPreparing(**_with(fields, attempt=attempt, exec=f"t1-{attempt}", incarnation=1, model="m"))


def started(attempt: int = 1) -> c.TurnStarted:
    return c.TurnStarted(exec=f"t1-{attempt}", key="k")


def text(words: str = "hello", n: int = 3, **fields: Any) -> a.AgentText:
    return a.AgentText(source_n=n, text=words, **fields)


def result(status: str = "completed", n: int = 4, **fields: Any) -> a.AgentResult:
    usage = c.Usage(input_tokens=100, output_tokens=10, cost_micro_usd=450)
    return a.AgentResult(**_with(fields, source_n=n, status=status, agent_session_id="a1", usage=usage))


RUNNING = (requested(), preparing(), started())
