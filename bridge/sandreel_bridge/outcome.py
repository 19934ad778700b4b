"""How a turn ended, from what its agent said and how its program ended (behaviour §4.6). Pure."""

from __future__ import annotations

from msgspec import Struct

from sandreel_core.contract.exec import Exited, Lost
from sandreel_core.contract.turn import TurnStatus
from sandreel_core.turn import Turn

_WHERE_FROM = "docs/agents.md says where a session finds it"
_LOST = {
    "oom": "the sandbox ran out of memory, and its recorder with it",
    "container_exit": "the sandbox ended",
    "runnerd_died": "the recorder of the sandbox died",
    "node_gone": "the machine of the sandbox is gone",
}
_REASONS = {
    "cancelled": "its program was cancelled",
    "stopped": "the session was stopped",
    "deadline": "its program ran into the time limit that it was given",
    "no_output": "its program was silent for as long as it was allowed to be",
    "orphaned": "nobody has kept its program alive",
}


class Outcome(Struct, frozen=True, kw_only=True):
    """`empty`: the agent said that it is done, and has said and done nothing: worth one more try."""

    status: TurnStatus
    error: str | None = None
    empty: bool = False


def outcome(turn: Turn, end: Exited | Lost, complaint: str = "") -> Outcome:
    """Of a turn whose program has ended and whose output is all folded. `complaint`: what it said last on stderr.

    What the agent itself reported counts for more than how its program ended; where it reported nothing, nothing is made up: the
    turn was interrupted, and the error says what is known of the cause.
    """
    result = turn.run.result
    if turn.interrupting:
        return Outcome(status="cancelled")
    if result is not None and result.status == "completed":
        if not turn.run.said:
            return _empty(turn)
        if proposal(turn) is not None:
            return Outcome(status="plan")
        if _plans(turn):
            return Outcome(status="failed", error="the agent proposed no plan")
        return Outcome(status="success")
    if result is not None and result.status == "max_turns":
        return Outcome(status="max_turns", error=result.error)
    if result is not None and result.status == "error":
        said = result.error or "the agent failed and did not say why"
        code = f" (the model's API answered {result.http_status})" if result.http_status else ""
        return Outcome(status="failed", error=_sentence(said + code))
    if result is not None and result.status == "cancelled":
        return Outcome(status="cancelled", error="the agent was interrupted")
    return _without_result(end, complaint)


def proposal(turn: Turn) -> str | None:
    """The plan that a turn ends with: what the agent gave to its tool for plans (Claude Code has one), else, of a turn in plan
    mode, its answer: what the plan modes of OpenCode and Gemini CLI come to is a text. None: there is none."""
    result = turn.run.result
    answer = result.final_text if _plans(turn) and result is not None and result.status == "completed" else None
    return turn.run.plan or (answer.strip() or None if answer else None)


def _plans(turn: Turn) -> bool:
    return turn.request is not None and turn.request.permission_mode == "plan"


def _empty(turn: Turn) -> Outcome:
    often = "" if turn.runs <= 1 else f", {turn.runs} times"
    return Outcome(status="failed", error=f"the agent ended without a word{often}", empty=True)


def _without_result(end: Exited | Lost, complaint: str) -> Outcome:
    """The agent ended, or was ended, in the middle."""
    if isinstance(end, Lost):
        return Outcome(status="failed" if end.cause == "oom" else "interrupted", error=_LOST[end.cause])
    if end.reason == "spawn_failed":
        why = end.message or "no reason given"
        return Outcome(status="failed", error=_sentence(f"the agent's program did not start: {why} ({_WHERE_FROM})"))
    if end.oom:
        return Outcome(status="failed", error="the agent's program was killed because the sandbox ran out of memory")
    if end.reason in ("cancelled", "stopped"):
        return Outcome(status="cancelled", error=_REASONS[end.reason])
    if end.reason != "exited":
        return Outcome(status="interrupted", error=_REASONS[end.reason])
    how = f"was ended by {end.signal}" if end.signal else f"exited with {end.exit_code}"
    said = f": {complaint}" if complaint else ""
    return Outcome(status="interrupted", error=_sentence(f"the agent's program {how} without a result{said}"))


def _sentence(text: str) -> str:
    return text[:4096]
