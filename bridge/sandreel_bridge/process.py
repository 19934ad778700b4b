"""What is to be done next about a turn: from its log, its session's and its exec's. Pure.

Whoever drives a turn does one step and asks again. So a successor, who knows nothing but the log, goes on where the first one
ended, and a step that was half done is done again under the same outside names.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from sandreel_bridge.outcome import outcome, proposal
from sandreel_core.contract.exec import Exited, Lost
from sandreel_core.contract.turn import TurnStatus
from sandreel_core.session import ABSENT, RUNNING, Session
from sandreel_core.turn import Turn

# How often a start may be refused for what passes by itself (a session that stops under it), or be closed with the boot that did not take
# it up, before the turn fails.
MAX_STARTS = 5
# Refusals of `exec.start` after which another try, with another life of the session or another key, can do better.
PASSING = frozenset(
    (
        "SESSION_NOT_FOUND",
        "SESSION_NOT_READY",
        "SECRET_UNAVAILABLE",
        "EXEC_LIMIT",
        "EXPIRED",
        "STALE",
        "OUTCOME_UNKNOWN",
    )
)

NEVER_TAKEN_UP = f"its session ended each time before it could start the program, {MAX_STARTS} times"

ExecPlace = Literal["unknown", "absent", "sent", "there", "lost"]


class Home(Struct, frozen=True, kw_only=True):
    """The session as it was when it was looked at. `sequence`: of its newest event, 0 where there is none; `ended_since`: it was destroyed
    after the turn was asked for, whatever has become of it then."""

    session: Session
    sequence: int
    ended_since: bool = False


class Facts(Struct, frozen=True, kw_only=True):
    """What is known beside the turn's own log.

    me            `source` of whoever drives it
    requested_at  sequence of the event that asked for it
    first         the turns of its conversation that were asked for before it have ended
    home          None: has to be looked at
    exec          of the attempt under way. sent: a command to start it is in the log, and nothing of the exec is; lost: its boot ended
                  before it took the start up, so that it never ran, and no exec of that id ever will
    has_key       the attempt's key is at hand, so that such a start can be answered
    pending       a start of the attempt that was sent before it was prepared anew may still be carried out, with the key of then
    end           how it ended, once all that it printed is folded
    refused       why the last start was refused; `refused_id`: the `turn.preparing` that it was for
    starts        how many starts were refused
    """

    me: str
    requested_at: int = 0
    first: bool = False
    home: Home | None = None
    exec: ExecPlace = "unknown"
    has_key: bool = False
    pending: bool = False
    end: Exited | Lost | None = None
    complaint: str = ""
    refused: str | None = None
    refused_id: str = ""
    starts: int = 0


class Leave(Struct, frozen=True):
    """There is nothing to drive."""


class Look(Struct, frozen=True):
    """Find out."""

    what: Literal["home", "exec"]


class StandInLine(Struct, frozen=True):
    """Wait for the turns of its conversation that were asked for before: two programs never resume the same one at a time."""


class MakeHome(Struct, frozen=True):
    """Have the session made, resumed or made again, and wait until it is ready."""


class Prepare(Struct, frozen=True):
    """Confirm the gateway, choose the model, find the conversation, and write the intent down. `pending`: as in `Facts`."""

    attempt: int
    pending: bool = False


class Start(Struct, frozen=True):
    """Make the key, place the files, send `exec.start`."""


class AwaitStart(Struct, frozen=True):
    """The start was sent: wait for its answer. Where the turn is to end there is no key for it, and so it does not start."""


class Began(Struct, frozen=True):
    """Write down that it runs."""


class Read(Struct, frozen=True):
    """Fold what it prints, until it has ended; steer and interrupt it meanwhile."""


class Requeue(Struct, frozen=True):
    """Messages that it is not known to have read go back to the queue."""

    message_ids: list[str]


class Propose(Struct, frozen=True):
    plan: str


class Finish(Struct, frozen=True, kw_only=True):
    status: TurnStatus
    error: str | None = None


_DESTROYED = Finish(status="cancelled", error="the session was destroyed")


class Settle(Struct, frozen=True):
    """It is finished: end its keys, compare the counts, open the turn that comes next."""


Step: TypeAlias = (
    Leave
    | Look
    | StandInLine
    | MakeHome
    | Prepare
    | Start
    | AwaitStart
    | Began
    | Read
    | Requeue
    | Propose
    | Finish
    | Settle
)


def next_step(turn: Turn, facts: Facts) -> Step:
    """Total: there is always one."""
    if turn.phase == "none" or turn.unreadable:
        return Leave()
    if turn.phase == "finished":
        return Settle()
    return _running(turn, facts) if turn.accepted else _starting(turn, facts)


def _starting(turn: Turn, facts: Facts) -> Step:
    preparing = turn.preparing
    if preparing is not None:
        if facts.exec == "unknown":
            return Look("exec")
        if facts.exec == "there":
            return Began()
        if facts.exec == "sent" and (turn.interrupting or (facts.has_key and turn.driver == facts.me)):
            return AwaitStart()
    if turn.interrupting:
        return _end(turn, Finish(status="cancelled"))
    if facts.refused is not None and (facts.starts >= MAX_STARTS or facts.refused.split(":")[0] not in PASSING):
        return _end(turn, Finish(status="failed", error=facts.refused))
    if facts.exec == "lost" and preparing is not None and preparing.attempt >= MAX_STARTS:
        return _end(turn, Finish(status="failed", error=NEVER_TAKEN_UP))
    if preparing is None and not facts.first:
        return StandInLine()
    if facts.home is None:
        return Look("home")
    if _destroyed_since(turn, facts, facts.home):
        return _end(turn, _DESTROYED)
    if facts.home.session.phase not in RUNNING:
        return MakeHome()
    if preparing is None:
        return Prepare(1)
    if facts.exec == "lost":
        return Prepare(preparing.attempt + 1)
    # With a key of one's own: the one before may be in use already by an exec that begins at this moment, and is not replaced.
    if facts.exec == "sent":
        return Prepare(preparing.attempt, pending=True)
    if turn.driver != facts.me or turn.prepared_id == facts.refused_id:
        return Prepare(preparing.attempt, pending=facts.pending)
    return Start()


def _destroyed_since(turn: Turn, facts: Facts, home: Home) -> bool:
    """Somebody has ended the session behind the turn's back: it is not made again for that turn."""
    session = home.session
    if home.ended_since:
        return True
    if turn.preparing is not None and session.incarnation != turn.preparing.incarnation:
        return True
    ending = session.phase == "destroying" or (session.phase in ABSENT and session.incarnation > 0)
    return ending and home.sequence > facts.requested_at


def _running(turn: Turn, facts: Facts) -> Step:
    if facts.end is None:
        return Read()
    found = outcome(turn, facts.end, facts.complaint)
    preparing = turn.preparing
    if found.empty and preparing is not None and turn.runs == 1 and not turn.waiting:
        if facts.home is None:
            return Look("home")
        if facts.home.session.phase in RUNNING and not _destroyed_since(turn, facts, facts.home):
            return Prepare(preparing.attempt + 1)
    if found.status == "interrupted" and isinstance(facts.end, Lost):
        if facts.home is None:
            return Look("home")
        if _destroyed_since(turn, facts, facts.home):
            return _end(turn, _DESTROYED)
    if found.status == "plan" and turn.proposed is None and (plan := proposal(turn)) is not None:
        return Propose(plan)
    return _end(turn, Finish(status=found.status, error=found.error))


def _end(turn: Turn, finish: Finish) -> Step:
    return Requeue(turn.waiting) if turn.waiting else finish
