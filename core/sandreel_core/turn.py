"""The life of an agent turn: its phases as a table, and the fold of its events. Pure.

    none → requested → running → finished

What its commands lead to is in `turn_decision`; how a turn is driven belongs to the bridge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as c
from sandreel_core.contract.message import Envelope, Unknown
from sandreel_core.turn_messages import Message, moved

Phase = Literal["none", "requested", "running", "finished"]

TRANSITIONS: dict[str, dict[Phase, Phase]] = {
    c.TurnRequested.type: {"none": "requested"},
    c.TurnStarted.type: {"requested": "running"},
    c.TurnFinished.type: {"requested": "finished", "running": "finished"},
}

_MAX_ID = 64
PLAN_TOOL = "ExitPlanMode"  # to which Claude Code gives its plan, where it has that tool
# Where Claude Code 2.1.330 and Gemini CLI 0.61.0 tell their model to write its plan: that file is the plan.
_PLAN_FOLDERS = ("/.claude/plans/", "/.gemini/tmp/")
# Of each kind (tools under way, sub-agents) so many are remembered: a turn may run for weeks.
_REMEMBERED = 256

T = TypeVar("T")


def evolve(phase: Phase, event_type: str) -> Phase:
    """The phase after an event of this type; what does not fit changes nothing."""
    return TRANSITIONS.get(event_type, {}).get(phase, phase)


class Run(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the agent said in the attempt that is under way.

    began     it has said that it begins, with the conversation that it was to go on with, if there was one
    said      it has said or done something: its turn is not empty
    result    the newest one, None once it goes on behind it
    plan      what it proposed last, if it has done nothing since
    tells     it says which messages it has read (`message_state`)
    tools     uses by the agent itself whose result has not come: names, by id
    tasks     what it began beside its answer, and is not settled
    source_n  ordinal of the exec's event from which the newest agent event was read; `at_source` events came from that one
    """

    began: bool = False
    said: bool = False
    result: a.AgentResult | None = None
    agent_session_id: str | None = None
    thread_usage: c.Usage | None = None
    plan: str | None = None
    tells: bool = False
    tools: dict[str, str] = {}
    tasks: tuple[str, ...] = ()
    source_n: int = 0
    at_source: int = 0


class Asked(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When it was asked for, by whom, by which command."""

    at: datetime
    command_id: str | None = None
    correlation_id: str | None = None
    actor: str | None = None
    traceparent: str | None = None


class Turn(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the log says of one turn.

    preparing  the attempt that is under way, and `prepared_at` and `prepared_id` of its event
    keys       (incarnation, number from 1) of each key that may have been made: one for each `turn.preparing`, so that a bridge that
               has lost the turn makes none in the place of its successor's
    accepted   runnerd has accepted that attempt's exec; `runs`: how many attempts came so far
    driver     `source` of whoever drives it: who last said something of it that answers no command
    usage      of all results; `unmeasured`: of one of them, or more, it cannot be known
    """

    phase: Phase = "none"
    request: c.TurnRequested | None = None
    asked: Asked | None = None
    preparing: c.TurnPreparing | None = None
    prepared_at: datetime | None = None
    prepared_id: str = ""
    keys: tuple[tuple[int, int], ...] = ()
    accepted: bool = False
    runs: int = 0
    interrupting: bool = False
    messages: dict[str, Message] = {}
    run: Run = Run()
    usage: c.Usage = c.Usage(cost_micro_usd=0)
    unmeasured: bool = False
    checkpoint: c.Checkpoint | None = None
    proposed: str | None = None
    decision: Literal["", "approved", "rejected"] = ""
    decided_at: datetime | None = None
    next_turn: str | None = None
    finished: c.TurnFinished | None = None
    ended_at: datetime | None = None
    driver: str = ""
    unreadable: str = ""

    @property
    def conversation(self) -> str | None:
        """What it belongs to; a turn that was given no conversation begins one, which is named after itself."""
        return self.request.conversation_id if self.request is not None else None

    @property
    def requeued(self) -> dict[str, str]:
        """Messages that went back to the queue, by id, in their order: they open the next turn."""
        return {id: message.text for id, message in self.messages.items() if message.place == "requeued"}

    @property
    def waiting(self) -> list[str]:
        """Ids of the messages that the program is not known to have read, in their order."""
        return [id for id, message in self.messages.items() if message.place in ("queued", "delivered")]

    @property
    def unread(self) -> int:
        """How many messages stand in the queue: those that wait, and those that went back into it."""
        return sum(message.place != "consumed" for message in self.messages.values())


def fold(turn: Turn, event: Envelope) -> Turn:
    """The turn after an event of its own subject. Never raises; what does not fit changes nothing."""
    data = event.data
    if isinstance(data, Unknown) and not event.type.startswith("agent."):
        return replace(turn, unreadable=event.type)
    if not isinstance(data, c.TurnEvent) or (turn.phase == "none" and not isinstance(data, c.TurnRequested)):
        return turn
    if event.causationid is None or isinstance(data, c.TurnRequested):
        turn = replace(turn, driver=event.source)
    if isinstance(data, a.AgentEvent):
        return _agent(turn, data)
    phase = evolve(turn.phase, event.type)
    match data:
        case c.TurnRequested() if turn.phase == "none":
            asked = Asked(
                at=event.time,
                command_id=event.causationid,
                correlation_id=event.correlationid,
                actor=event.actor,
                traceparent=event.traceparent,
            )
            return replace(turn, phase=phase, request=data, asked=asked)
        case c.TurnPreparing() if turn.phase != "finished":
            keys = (*turn.keys, (data.incarnation, len(turn.keys) + 1))
            again = turn.preparing is not None and turn.preparing.attempt == data.attempt
            turn = replace(turn, preparing=data, prepared_at=event.time, prepared_id=event.id, keys=keys)
            return turn if again else replace(turn, accepted=False, run=Run(), checkpoint=None)
        case c.TurnStarted():
            return replace(turn, phase=phase, accepted=True, runs=turn.runs + (not turn.accepted))
        case c.TurnInterrupting():
            return replace(turn, interrupting=True)
        case c.Checkpoint():
            return replace(turn, checkpoint=data)
        case c.PlanProposed():
            return replace(turn, proposed=data.plan)
        case c.PlanApproved():
            return replace(turn, decision="approved", decided_at=event.time, next_turn=data.next_turn)
        case c.PlanRejected():
            return replace(turn, decision="rejected", decided_at=event.time)
        case c.TurnFinished() if turn.phase != "finished":
            return replace(turn, phase=phase, finished=data, ended_at=event.time)
    return replace(turn, messages=moved(turn.messages, data, event.time))


def _agent(turn: Turn, data: a.AgentEvent) -> Turn:
    if not turn.accepted or turn.phase == "finished":
        return turn
    run = turn.run
    at_source = run.at_source + 1 if data.source_n == run.source_n else 1
    run = replace(run, source_n=data.source_n, at_source=at_source)
    match data:
        case a.RunStarted():
            id = data.agent_session_id or run.agent_session_id
            run = replace(run, began=True, agent_session_id=id, result=None if data.parent is None else run.result)
        case a.AgentRaw() if (state := message_state(data)) is not None:
            # It has begun to answer a message: what it said before is no end any more.
            run = replace(run, tells=True, result=None if state[1] == "started" else run.result)
        case a.AgentText():
            run = replace(run, said=True, result=None if data.parent is None else run.result)
        case a.ToolUse():
            run = _used(run, data, plan_mode=turn.request is not None and turn.request.permission_mode == "plan")
        case a.ToolResult():
            run = replace(run, tools={id: name for id, name in run.tools.items() if id != data.tool_use_id})
        case a.TaskStarted():
            run = replace(run, tasks=(*run.tasks, data.task_id)[-_REMEMBERED:])
        case a.TaskSettled():
            run = replace(run, tasks=tuple(id for id in run.tasks if id != data.task_id))
        case a.AgentResult():
            usage = summed((turn.usage, data.usage)) if data.usage is not None else turn.usage
            run = replace(
                run,
                result=data,
                tools={},
                said=run.said or bool(data.final_text),
                agent_session_id=data.agent_session_id or run.agent_session_id,
                thread_usage=data.thread_usage or run.thread_usage,
            )
            return replace(turn, run=run, usage=usage, unmeasured=turn.unmeasured or data.usage is None)
    return replace(turn, run=run)


def _used(run: Run, data: a.ToolUse, *, plan_mode: bool) -> Run:
    if data.parent is not None:
        return replace(run, said=True)
    tools = _newest(run.tools | {data.tool_use_id: data.tool_name})
    plan = run.plan if plan_mode else None  # what is carried out is no proposal any more
    if data.tool_name == PLAN_TOOL and isinstance(data.input, dict) and isinstance(data.input.get("plan"), str):
        plan = data.input["plan"]
    elif plan_mode and isinstance(data.input, dict):
        plan = _written(plan, data.input)
    return replace(run, said=True, tools=tools, plan=plan, result=None)


def _written(plan: str | None, given: dict[str, Any]) -> str | None:
    """The plan after a tool was given this: one that writes the plan's file, or changes something in it."""
    path, content = given.get("file_path"), given.get("content")
    old, new = given.get("old_string"), given.get("new_string")
    if not (isinstance(path, str) and path.endswith(".md") and any(folder in path for folder in _PLAN_FOLDERS)):
        return plan
    if isinstance(content, str):
        return content
    if plan is not None and isinstance(old, str) and isinstance(new, str):
        return plan.replace(old, new, -1 if given.get("replace_all") is True else 1)
    return plan


def _newest(kept: dict[str, T]) -> dict[str, T]:
    return dict(list(kept.items())[-_REMEMBERED:]) if len(kept) > _REMEMBERED else kept


def summed(usages: Iterable[c.Usage]) -> c.Usage:
    """Of usages that do not overlap. The sum has no price as soon as one of them has none; of none it is zero."""
    total = c.Usage(cost_micro_usd=0)
    for each in usages:
        priced = total.cost_micro_usd is not None and each.cost_micro_usd is not None
        total = c.Usage(
            input_tokens=total.input_tokens + each.input_tokens,
            output_tokens=total.output_tokens + each.output_tokens,
            cache_read_input_tokens=total.cache_read_input_tokens + each.cache_read_input_tokens,
            cache_creation_input_tokens=total.cache_creation_input_tokens + each.cache_creation_input_tokens,
            cost_micro_usd=(total.cost_micro_usd or 0) + (each.cost_micro_usd or 0) if priced else None,
        )
    return total


def message_state(raw: a.AgentRaw) -> tuple[str, str] | None:
    """(UUID, state) of a message to the program, from a line by which it says what has become of it: `queued`, `started`, `completed`,
    `cancelled`. Claude Code has such a line, and what drives OpenCode says the same."""
    payload = raw.payload
    if not isinstance(payload, dict) or payload.get("type") != "command_lifecycle":
        return None
    return str(payload.get("command_uuid")), str(payload.get("state"))


def derived_id(turn: str, suffix: str) -> str:
    """An id of something that belongs to the turn: `<turn>-<suffix>`, or, where that is too long for an id, its beginning and a
    digest of the whole, so that two turns never share one."""
    whole = f"{turn}-{suffix}"
    if len(whole) <= _MAX_ID:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
    return f"{turn[: _MAX_ID - len(suffix) - 18]}-{digest}-{suffix}"


def exec_of(turn: str, attempt: int) -> str:
    """The exec id of a turn's attempt."""
    return derived_id(turn, str(attempt))
