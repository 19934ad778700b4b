"""When a running program is told something: that its input ends, that it shall stop. Pure.

No timer ends a turn (behaviour §4.6): those that are here begin when somebody interrupts it, or when the agent itself has said that it is
done and has nothing to wait for; then they begin anew with every sign of life.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from sandreel_core.turn import Turn

EOF_GRACE_S = 30.0  # behaviour §4.4: from the end of its input, or of what it went on with behind that, to its end
# Of our own: a program whose input had ended from the start (Codex, Gemini CLI) is gone 2 s behind its answer (agents.md); one that hangs
# there would keep its turn for ever.
LINGER_S = 60.0
# An interrupted Claude Code answers within 30 ms and is gone 1.6 s later at most (agents.md); each step gets some time more.
ASK_GRACE_S = 3.0
SIGNAL_GRACE_S = 3.0
# `exec.cancel` itself is SIGTERM and, 5 s later, SIGKILL; should it be lost on its way, it is sent again.
CANCEL_AGAIN_S = 15.0

Action = Literal["ask", "eof", "signal", "cancel"]


class Told(Struct, kw_only=True):
    """What the program was told, and when, in seconds of one monotonic clock. Mutable: its owner writes into it.

    worked_at  when it was last seen at work: without an answer that is finished, or printing anything, or out of sight
    """

    worked_at: float = 0.0
    asked_at: float | None = None
    eof_at: float | None = None
    signalled_at: float | None = None
    cancelled_at: float | None = None


def due(
    turn: Turn, told: Told, *, at_s: float, holds_stdin: bool, has_protocol: bool
) -> tuple[Action | None, float | None]:
    """(what to do now, in how many seconds to look again). Neither: only another event can change anything.

    holds_stdin   its input was left open for what is said later
    has_protocol  it can be asked to stop over its input
    """
    if turn.interrupting:
        return _interrupt(told, at_s, holds_stdin and has_protocol)
    if told.eof_at is not None:
        if turn.run.result is None:
            return None, None  # it has gone on, with what it was told before, or by itself
        return _later("cancel", told.cancelled_at, max(told.eof_at, told.worked_at) + EOF_GRACE_S, at_s)
    if turn.run.result is None or turn.run.tasks:
        return None, None
    if not holds_stdin:
        return _later("cancel", told.cancelled_at, told.worked_at + LINGER_S, at_s)
    return ("eof", None) if not turn.waiting else (None, None)


def _interrupt(told: Told, at_s: float, can_ask: bool) -> tuple[Action | None, float | None]:
    if can_ask and told.asked_at is None:
        return "ask", None
    if told.asked_at is not None and told.eof_at is None:
        return "eof", None  # what it has been asked before stands before the end of its input
    asked_at = told.asked_at
    if told.signalled_at is None:
        due_at = asked_at + ASK_GRACE_S if asked_at is not None else at_s
        return ("signal", None) if at_s >= due_at else (None, due_at - at_s)
    return _later("cancel", told.cancelled_at, told.signalled_at + SIGNAL_GRACE_S, at_s)


def _later(action: Action, done_at: float | None, due_at: float, at_s: float) -> tuple[Action | None, float | None]:
    due_at = due_at if done_at is None else done_at + CANCEL_AGAIN_S
    return (action, None) if at_s >= due_at else (None, due_at - at_s)
