"""The spawner's decisions: the session machine over its own log, plus a slot in the quotas for whatever is to run."""

from __future__ import annotations

from dataclasses import dataclass

from sandreel_core import session as machine
from sandreel_core.bus.aggregate import Aggregate, Decision
from sandreel_core.bus.measures import CommandMeasures
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.bus.reactor import Reactor
from sandreel_core.bus.streams import CMD_MAX_AGE_S, SPAWNER_COMMANDS
from sandreel_core.clock import now
from sandreel_core.contract.message import Command, Event
from sandreel_core.contract.session import Requested, Resuming
from sandreel_core.contract.subjects import CommandSubject, SessionSubjects
from sandreel_core.errors import Refused
from sandreel_core.session import Terms
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.quota import Claim, Quota
from sandreel_core.spawner.sessions import Record, evolve


@dataclass(frozen=True, slots=True)
class Limits:
    """What a session may ask for (behaviour §2.3)."""

    max_ttl_s: float = 24 * 3600
    max_idle_s: float = 30 * 60
    stop_within_s: float = 60
    boot_within_s: float = 180

    def terms(self) -> Terms:
        """The limits as of now."""
        return Terms(
            now=now(),
            max_ttl_s=self.max_ttl_s,
            max_idle_s=self.max_idle_s,
            stop_within_s=self.stop_within_s,
            resume_within_s=self.boot_within_s,
        )


def decide(record: Record, command: Command, terms: Terms) -> Event | Refused | None:
    """The session machine's decision. Pure."""
    return machine.decide(record.session, command, terms)


def commands(
    bus: Bus,
    quota: Quota,
    limits: Limits,
    *,
    node: str,
    source: str,
    partitions: int,
    command_max_age_s: float = CMD_MAX_AGE_S,
    measures: CommandMeasures | None = None,
) -> Reactor[Record, Terms]:
    """The loop that answers `cmd.spawner.>`. What is to run on no node yet counts against `node`."""

    def subject(where: CommandSubject) -> str:
        return SessionSubjects(where.org, where.session, partitions).event("session")

    async def context(_: Stored) -> Terms:
        return limits.terms()

    async def admit(decision: Decision[Record]) -> Refused | None:
        event, session = decision.event.data, decision.state.session
        if isinstance(event, Requested):
            incarnation, owner, host = event.incarnation, event.owner, node
        elif isinstance(event, Resuming) and session.owner is not None:
            incarnation, owner, host = session.incarnation, session.owner, session.node or node
        else:
            return None
        key = Key(decision.where.org, decision.where.session)
        try:
            await quota.take(Claim(key=key, incarnation=incarnation, owner=owner, node=host), now())
        except Refused as refused:
            return refused
        return None

    aggregate = Aggregate(initial=Record(), evolve=evolve, decide=decide, subject=subject, context=context)
    return Reactor(
        bus,
        SPAWNER_COMMANDS,
        aggregate,
        source=source,
        admit=admit,
        command_max_age_s=command_max_age_s,
        measures=measures,
    )
