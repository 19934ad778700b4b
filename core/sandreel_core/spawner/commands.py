"""The spawner's decisions: the session machine, plus a slot in the quotas for whatever is to run."""

from __future__ import annotations

from dataclasses import dataclass

from sandreel_core import session as machine
from sandreel_core.clock import now
from sandreel_core.contract.message import Command, Event
from sandreel_core.contract.session import Create, Requested, Resuming
from sandreel_core.errors import Refused
from sandreel_core.session import Terms
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.quota import Claim, Quota
from sandreel_core.spawner.sessions import Record


@dataclass(frozen=True, slots=True)
class Limits:
    """What a session may ask for (behaviour §2.3)."""

    max_ttl_s: float = 24 * 3600
    max_idle_s: float = 30 * 60
    stop_within_s: float = 60
    boot_within_s: float = 180

    def terms(self) -> Terms:
        return Terms(
            now=now(),
            max_ttl_s=self.max_ttl_s,
            max_idle_s=self.max_idle_s,
            stop_within_s=self.stop_within_s,
            resume_within_s=self.boot_within_s,
        )


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision depends on beside the session: the terms, and whether there was a slot."""

    terms: Terms
    no_slot: Refused | None = None


class Commands:
    def __init__(self, quota: Quota, limits: Limits, node: str) -> None:
        self._quota = quota
        self._limits = limits
        self._node = node

    async def context(self, key: Key, record: Record, command: Command) -> Context:
        """Takes the slot that the decision needs, if it needs one. Raises Unavailable."""
        terms = self._limits.terms()
        session = record.session
        decision = machine.decide(session, command, terms)
        if isinstance(decision, Requested) and isinstance(command, Create):
            claim = Claim(key=key, incarnation=decision.incarnation, owner=command.owner, node=self._node)
        elif isinstance(decision, Resuming) and session.owner is not None:
            node = session.node or self._node
            claim = Claim(key=key, incarnation=session.incarnation, owner=session.owner, node=node)
        else:
            return Context(terms)
        try:
            await self._quota.take(claim, terms.now)
        except Refused as refused:
            return Context(terms, refused)
        return Context(terms)


def decide(record: Record, command: Command, context: Context) -> Event | Refused | None:
    """The session machine's decision; where there was no slot for it, QUOTA_EXCEEDED. Pure."""
    decision = machine.decide(record.session, command, context.terms)
    if context.no_slot is not None and isinstance(decision, Requested | Resuming):
        return context.no_slot
    return decision
