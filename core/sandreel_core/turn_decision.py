"""The answers to commands about a turn. Pure."""

from __future__ import annotations

from posixpath import normpath

from msgspec import Struct

from sandreel_core.contract import turn as c
from sandreel_core.contract.message import Command, Event
from sandreel_core.errors import Refused
from sandreel_core.turn import Turn, derived_id

MAX_QUEUED = 10  # behaviour §4.1


class Terms(Struct, frozen=True, kw_only=True):
    """What a decision depends on beside state and command.

    agents  the names of those that there are
    mark    of the command's id, with which the id of what it leads to is nobody else's
    """

    agents: frozenset[str]
    mark: str


def mark_of(command_id: str) -> str:
    """Six of its random digits: nobody has a turn of that name already."""
    return command_id[-6:]


def decide(turn: Turn, command: Command, terms: Terms) -> Event | Refused | None:
    """The one event that a command leads to, a refusal, or None where what it asks for is already so."""
    if turn.unreadable:
        return Refused("NEWER_CONTRACT", f"the turn's log holds {turn.unreadable}, which this version cannot read")
    if isinstance(command, c.StartTurn):
        return _start(turn, command, terms)
    if not isinstance(command, c.TurnCommand):
        return Refused("BAD_REQUEST", f"{command.type} is not a command about a turn")
    if turn.phase == "none":
        return Refused("TURN_NOT_FOUND", f"there is no turn {command.turn}")
    match command:
        case c.Steer():
            return _steer(turn, command)
        case c.Interrupt():
            if turn.phase == "finished":
                return _is_over(command)
            return None if turn.interrupting else c.TurnInterrupting()
        case c.Approve() | c.Reject():
            return _decide_plan(turn, command, terms)
    return Refused("BAD_REQUEST", f"{command.type} is not a command that the bridge knows")


def _start(turn: Turn, command: c.StartTurn, terms: Terms) -> Event | Refused:
    if turn.phase != "none":
        return Refused("DUPLICATE_TURN", f"there is a turn {command.turn} already")
    if command.agent not in terms.agents:
        return Refused("UNKNOWN_AGENT", f"agent {command.agent} is none of {', '.join(sorted(terms.agents))}")
    problem = _too_long("prompt", command.prompt) or _too_long("system_prompt_append", command.system_prompt_append)
    paths = [("workdir", command.workdir), *(("attachments.path", each.path) for each in command.attachments)]
    problem = problem or next((said for field, path in paths if path and (said := _outside(field, path))), None)
    problem = problem or _twice([each.path for each in command.attachments])
    if problem is not None:
        return Refused("BAD_REQUEST", problem)
    return c.TurnRequested(
        agent=command.agent,
        model=command.model,
        conversation_id=command.conversation_id or command.turn,
        prompt=command.prompt,
        prompt_object=command.prompt_object,
        permission_mode=command.permission_mode,
        max_turns=command.max_turns,
        system_prompt_append=command.system_prompt_append,
        grants=command.grants,
        owner=command.owner,
        profile=command.profile,
        workdir=command.workdir,
        attachments=command.attachments,
        budget_micro_usd=command.budget_micro_usd,
    )


def _steer(turn: Turn, command: c.Steer) -> Event | Refused | None:
    if command.message_id in turn.messages:
        return None
    if turn.phase == "finished":
        return _is_over(command)
    if turn.interrupting:
        return Refused("TURN_FINISHED", f"turn {command.turn} is being interrupted")
    if turn.unread >= MAX_QUEUED:
        return Refused(
            "QUEUE_FULL", f"{MAX_QUEUED} messages that the agent has not read wait already, which is the limit"
        )
    problem = _too_long("text", command.text)
    return (
        Refused("BAD_REQUEST", problem) if problem else c.SteerQueued(message_id=command.message_id, text=command.text)
    )


def _decide_plan(turn: Turn, command: c.Approve | c.Reject, terms: Terms) -> Event | Refused | None:
    if turn.proposed is None:
        return Refused("NO_PLAN", f"turn {command.turn} has proposed no plan")
    if not turn.decision and turn.interrupting:
        return Refused("NO_PLAN", f"turn {command.turn} was interrupted, and its plan with it")
    wanted = "approved" if isinstance(command, c.Approve) else "rejected"
    if turn.decision:
        return None if turn.decision == wanted else Refused("PLAN_DECIDED", f"the plan is {turn.decision} already")
    if isinstance(command, c.Reject):
        return c.PlanRejected(reason=command.reason)
    return c.PlanApproved(next_turn=derived_id(command.turn, f"go-{terms.mark}"))


def _is_over(command: c.TurnCommand) -> Refused:
    return Refused("TURN_FINISHED", f"turn {command.turn} is finished")


def _too_long(field: str, text: str | None) -> str | None:
    size = len(text.encode()) if text else 0
    return f"{field} has {size} bytes; the limit is {c.MAX_PROMPT_BYTES}" if size > c.MAX_PROMPT_BYTES else None


def _twice(paths: list[str]) -> str | None:
    """One would be placed over the other. Paths as they are written: `./a` and `a` are one, `/workspace/a` as well."""
    seen: set[str] = set()
    for path in paths:
        plain = normpath(path.removeprefix("/workspace/")).lstrip("/")
        if plain in seen:
            return f"attachments.path {path[:80]!r} is given twice"
        seen.add(plain)
    return None


def _outside(field: str, path: str) -> str | None:
    steps = path.split("/")
    if "\0" in path or ".." in steps or (path.startswith("/") and steps[1] != "workspace"):
        return f"{field} {path[:80]!r} is not below the workspace"
    return None
