"""What is left to do when a turn is finished: its keys end, what the agent said is compared with what the gateway counted, and what comes
next is opened. All of it can be done twice."""

from __future__ import annotations

from typing import Literal, TypeAlias

from sandreel_bridge import sandbox
from sandreel_bridge.attempt import command_id, key_names
from sandreel_bridge.gateway.port import Gateway
from sandreel_bridge.journal import Journal, Name
from sandreel_core.bus.kept import kept
from sandreel_core.bus.port import Bus
from sandreel_core.client import Client
from sandreel_core.clock import new_id, now
from sandreel_core.contract.codec import decode_event, encode, seal
from sandreel_core.contract.turn import MAX_PROMPT_BYTES, StartTurn, Steer, TurnCommand, TurnRequested, Usage
from sandreel_core.contract.usage import UsageReconciled
from sandreel_core.errors import Malformed, Refused
from sandreel_core.log import Log
from sandreel_core.session import RUNNING, Phase
from sandreel_core.turn import Turn, derived_id, summed
from sandreel_core.turn_decision import mark_of

# (command id, command)
Sent: TypeAlias = tuple[str, TurnCommand]

GO = "The plan is approved. Carry it out."
_APART = "\n\n"
_REST = "\n… [the rest of the plan stands in this conversation]"


async def revoke(gateway: Gateway, name: Name, turn: Turn) -> Usage | None:
    """End every key that the turn may have; what was used with them in all, None where the gateway knows none of them. Raises
    Unavailable."""
    standings = [await gateway.revoke(each) for each in key_names(name, turn)]
    known = [standing.usage for standing in standings if standing is not None]
    return summed(known) if known else None


def is_measured(turn: Turn) -> bool:
    """Whether `turn.usage` is all that the agent used, by what it said. Of one that was ended in the middle of an answer it is not."""
    return not turn.unmeasured and (turn.run.result is not None or not turn.accepted)


async def reconcile(bus: Bus, journal: Journal, counted: Usage) -> None:
    """`usage.reconciled`, once: it is looked for behind the turn's end first."""
    subject = journal.subjects.event("usage")
    async with kept(bus, journal.subjects.stream, [subject], after=journal.finished_at) as messages:
        async for stored in messages:
            try:
                said = decode_event(subject, stored.body).data
            except Malformed:
                continue
            if isinstance(said, UsageReconciled) and said.turn == journal.name.turn:
                return
    turn = journal.turn
    agent = turn.usage if turn.accepted and is_measured(turn) else None
    said, measured = agent.cost_micro_usd if agent is not None else None, counted.cost_micro_usd
    drift = measured - said if measured is not None and said is not None else None
    event = UsageReconciled(turn=journal.name.turn, gateway=counted, agent=agent, drift_micro_usd=drift)
    envelope = seal(
        event,
        id=new_id(),
        source=journal.source,
        subject=subject,
        time=now(),
        correlationid=turn.asked.correlation_id or turn.asked.command_id if turn.asked is not None else None,
    )
    # Two bridges that settle the same turn at once: the server keeps the first.
    await bus.append(subject, encode(envelope), message_id=f"reconciled-{journal.name}")


def opens_next(turn: Turn, phase: Phase) -> bool:
    """Whether messages that were not read open a turn, in a session of that phase. Pure.

    Also after an interrupt: what a person said before it was said to be answered. Not where it was stopped before its program ran, for
    then no reply appears; nor where the session was stopped or destroyed under it, which a next turn would make again. Then they stay
    in its queue, for whoever looks.
    """
    if turn.finished is None or not turn.requeued:
        return False
    if turn.finished.status == "cancelled":
        return turn.accepted and phase in RUNNING
    return phase not in ("destroying", "destroyed")


def plan_command(name: Name, turn: Turn) -> Sent | None:
    """By which an approved plan is carried out. Pure."""
    request = turn.request
    if request is None or turn.next_turn is None or turn.decided_at is None or turn.finished is None:
        return None
    # Whoever approves a plan, and stops its turn before that has ended, does not want it any more.
    if turn.finished.status == "cancelled":
        return None
    id = command_id(turn.decided_at, "go", str(name))
    return id, _start(request, turn.next_turn, _go(turn.proposed or ""), "execute")


def message_commands(name: Name, turn: Turn, *, taken: bool = False) -> list[Sent]:
    """By which messages that were not read open a turn, and those that do not fit into its prompt wait for it. `taken`: somebody has
    a turn of the id that it would have; it gets another one. Pure."""
    request, at = turn.request, turn.ended_at
    if request is None or at is None or not turn.requeued:
        return []
    id = command_id(at, "next", str(name))
    following = derived_id(name.turn, "next")
    if taken:
        following = derived_id(name.turn, f"next-{mark_of(id)}")
        id = command_id(at, "next", str(name), following)
    texts, rest = _fitting(turn.requeued)
    steers = ((each, Steer(turn=following, message_id=each, text=text)) for each, text in rest.items())
    return [
        (id, _start(request, following, _APART.join(texts), request.permission_mode)),
        *((command_id(at, "steer", str(name), each, following), steer) for each, steer in steers),
    ]


def _go(plan: str) -> str:
    """The prompt that has a plan carried out. One that is too long for a prompt is cut and says so: the conversation has it all."""
    whole = f"{GO}{_APART}{plan}"
    if len(whole.encode()) <= MAX_PROMPT_BYTES:
        return whole
    return whole.encode()[: MAX_PROMPT_BYTES - len(_REST.encode())].decode(errors="ignore") + _REST


def _fitting(queued: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """(the texts that make one prompt, the messages that do not fit into it)."""
    texts: list[str] = []
    rest: dict[str, str] = {}
    size = 0
    for id, text in queued.items():
        size += len(text.encode()) + len(_APART)
        if texts and (rest or size > MAX_PROMPT_BYTES):
            rest[id] = text
        else:
            texts.append(text)
    return texts, rest


def _start(request: TurnRequested, id: str, prompt: str, mode: Literal["plan", "execute"]) -> StartTurn:
    return StartTurn(
        turn=id,
        agent=request.agent,
        prompt=prompt,
        model=request.model,
        conversation_id=request.conversation_id,
        permission_mode=mode,
        max_turns=request.max_turns,
        system_prompt_append=request.system_prompt_append,
        grants=request.grants,
        owner=request.owner,
        profile=request.profile,
        workdir=request.workdir,
        budget_micro_usd=request.budget_micro_usd,
    )


async def open_next(client: Client, name: Name, turn: Turn) -> None:
    """Raises Unavailable. A refusal is an answer, which stands in the log; but what is to come next does not end up in a turn that
    somebody else has asked for under its id, nor in none."""
    if (carried_out := plan_command(name, turn)) is not None:
        await _sent(client, name, [carried_out])
    if not turn.requeued or not opens_next(turn, (await sandbox.look(client, name)).session.phase):
        return
    if not await _sent(client, name, message_commands(name, turn)):
        await _sent(client, name, message_commands(name, turn, taken=True))


async def _sent(client: Client, name: Name, commands: list[Sent]) -> bool:
    """In their order. False, and no more of them, when somebody has a turn of the id of the one that they begin with."""
    for id, command in commands:
        try:
            await client.send(name.org, name.session, command, command_id=id)
        except Refused as refused:
            Log("bridge.settling").warning(
                "what comes next was refused", turn=str(name), command=command.type, code=refused.code
            )
            if refused.code == "DUPLICATE_TURN":
                return False
    return True
