"""The bridge's decisions: the turn machine over each turn's own log."""

from __future__ import annotations

from collections.abc import Mapping

from sandreel_bridge.adapters.adapter import Adapter, Gateway
from sandreel_bridge.index import Index
from sandreel_bridge.journal import Name
from sandreel_bridge.launching import launch_of, spec_of
from sandreel_bridge.line import Line, conversation_of
from sandreel_bridge.prompts import Prompts
from sandreel_core.bus.aggregate import Aggregate, Decided, Decision
from sandreel_core.bus.loading import load
from sandreel_core.bus.measures import CommandMeasures
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.bus.reactor import Reactor
from sandreel_core.bus.streams import BRIDGE_COMMANDS, CMD_MAX_AGE_S
from sandreel_core.contract import turn as c
from sandreel_core.contract.exec import SecretRef
from sandreel_core.contract.message import Command, Event
from sandreel_core.contract.subjects import CommandSubject, SessionSubjects, parse_command_subject
from sandreel_core.errors import Malformed, NotFound, Refused
from sandreel_core.turn import Turn, exec_of, fold
from sandreel_core.turn_decision import Terms, mark_of
from sandreel_core.turn_decision import decide as decide_turn

_NO_GATEWAY = (
    "no gateway is configured, so that nothing could meter and refuse what a turn spends: start `sandreel up` with a provider's key "
    "(ANTHROPIC_API_KEY, OPENAI_API_KEY or GEMINI_API_KEY) in its environment, or set [bridge] gateway_url"
)


def decide(turn: Turn, command: Command, terms: Terms) -> Event | Refused | None:
    """The turn machine's decision, and a refusal of what the agent's program cannot do. Pure."""
    decision = decide_turn(turn, command, terms)
    if isinstance(decision, c.TurnRequested) and isinstance(command, c.StartTurn):
        exec = exec_of(command.turn, 1)
        gateway = Gateway(base_url="http://gateway", key=SecretRef(role="bridge", lease=exec))
        spec = spec_of(decision, gateway, model=decision.model, browser=False, seed=exec)
        try:
            launch_of(decision.agent, spec)
        except Malformed as error:
            return Refused("BAD_REQUEST", str(error))
    return decision


def commands(
    bus: Bus,
    index: Index,
    line: Line,
    prompts: Prompts,
    agents: Mapping[str, Adapter],
    decided: Decided[Turn],
    *,
    source: str,
    partitions: int,
    has_gateway: bool,
    command_max_age_s: float = CMD_MAX_AGE_S,
    measures: CommandMeasures | None = None,
) -> Reactor[Turn, Terms]:
    """The loop that answers `cmd.bridge.>`, on the subject of the turn that a command is about."""
    names = frozenset(agents)

    def subject(where: CommandSubject) -> str:
        return SessionSubjects(where.org, where.session, partitions).event("command")

    def keyed(where: CommandSubject, command: Command) -> str:
        if not isinstance(command, c.TurnCommand):
            return subject(where)
        return SessionSubjects(where.org, where.session, partitions).event("turn", command.turn)

    async def admit(decision: Decision[Turn]) -> Refused | None:
        event, where, command = decision.event.data, decision.where, decision.command
        if command is None or not isinstance(command.data, c.TurnCommand):
            return None
        name = Name(where.org, where.session, command.data.turn)
        if isinstance(event, c.TurnRequested):
            if not has_gateway:
                return Refused("NO_GATEWAY", _NO_GATEWAY)
            if event.owner is None:
                session = SessionSubjects(where.org, where.session, partitions)
                if await bus.last(session.stream, session.event("session")) is None:
                    return Refused("SESSION_NOT_FOUND", "there is no session with this id, and no owner to make it for")
            if event.prompt_object is not None:
                try:
                    await prompts.read(where.org, event.prompt_object)
                except NotFound as error:
                    return Refused("PROMPT_NOT_FOUND", str(error))
            return await line.join(name, event, asked_by=command.actor)
        if isinstance(event, c.PlanApproved) and decision.state.request is not None:
            await index.open(name, conversation_of(name, decision.state.request))
        return None

    async def elsewhere(where: CommandSubject) -> bool:
        """Where no bridge is installed, the spawner refuses what one is asked; that is final."""
        session = SessionSubjects(where.org, where.session, partitions).event("session")
        return where.command_id in (await load(bus, session, None, lambda state, event: state)).answers

    async def context(command: Stored) -> Terms:
        return Terms(agents=names, mark=mark_of(parse_command_subject(command.subject).command_id))

    aggregate = Aggregate(initial=Turn(), evolve=fold, decide=decide, subject=subject, context=context, keyed=keyed)
    return Reactor(
        bus,
        BRIDGE_COMMANDS,
        aggregate,
        source=source,
        admit=admit,
        decided=decided,
        elsewhere=elsewhere,
        command_max_age_s=command_max_age_s,
        measures=measures,
    )
