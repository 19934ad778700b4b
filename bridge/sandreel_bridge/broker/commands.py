"""The broker's decisions: the machine of `sandreel_core.credential` over its own log, for sessions and credentials that are there."""

from __future__ import annotations

from sandreel_bridge.broker.standing import Key, Standing
from sandreel_bridge.broker.vault import Vault
from sandreel_core import credential as machine
from sandreel_core.bus.aggregate import Aggregate, Decision
from sandreel_core.bus.measures import CommandMeasures
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.bus.reactor import Reactor
from sandreel_core.bus.streams import BROKER_COMMANDS, CMD_MAX_AGE_S
from sandreel_core.clock import now
from sandreel_core.contract.credential import Granted
from sandreel_core.contract.subjects import CommandSubject, parse_command_subject
from sandreel_core.credential import Credentials, Terms
from sandreel_core.errors import Refused, Unavailable
from sandreel_core.session import ABSENT, BOOTING, RUNNING

_LIVE = (*BOOTING, *RUNNING)


def commands(
    bus: Bus,
    standing: Standing,
    vault: Vault,
    *,
    source: str,
    command_max_age_s: float = CMD_MAX_AGE_S,
    measures: CommandMeasures | None = None,
) -> Reactor[Credentials, Terms]:
    """The loop that answers `cmd.broker.>`."""

    def subject(where: CommandSubject) -> str:
        return standing.subjects(Key(where.org, where.session)).event("credential")

    def mine(state: Credentials, stored: Stored) -> bool:
        return not standing.was_refused(stored.subject.rpartition(".")[2])

    async def context(stored: Stored) -> Terms:
        where = parse_command_subject(stored.subject)
        key = Key(where.org, where.session)
        session = standing.get(key).session
        if session.phase in ABSENT:
            session = await standing.session(
                key
            )  # the table may be some milliseconds old, and it may just have been created
        grants = () if session.phase in ABSENT else session.grants
        return Terms(now=now(), incarnation=session.incarnation, born_with=grants)

    async def admit(decision: Decision[Credentials]) -> Refused | None:
        event = decision.event.data
        if not isinstance(event, Granted):
            return None
        key = Key(decision.where.org, decision.where.session)
        phase = standing.get(key).session.phase
        if phase not in _LIVE:
            phase = (await standing.session(key)).phase  # the table may be some milliseconds old
        if phase in ("none", "destroying", "destroyed"):
            return Refused("SESSION_NOT_FOUND", "there is no session with this id")
        if phase not in _LIVE:
            return Refused("SESSION_NOT_READY", f"the session is {phase}: grants end with a boot, so resume it first")
        try:
            known = await vault.entries(key.org, [event.slug])
        except Unavailable:
            return None  # a grant is a permission; whether there is anything to lease, the lease finds out
        if not known:
            return Refused("CREDENTIAL_NOT_FOUND", f"the vault holds no {event.slug} of this org")
        return None

    aggregate = Aggregate(
        initial=Credentials(),
        evolve=machine.evolve,
        decide=machine.decide,
        subject=subject,
        context=context,
        mine=mine,
    )
    return Reactor(
        bus,
        BROKER_COMMANDS,
        aggregate,
        source=source,
        admit=admit,
        command_max_age_s=command_max_age_s,
        measures=measures,
    )
