"""Messages of the two meters at a session's border: model calls (gateway) and refused connections (egress)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from sandreel_core.contract.message import Event, Ordinal, Sentence
from sandreel_core.contract.turn import Usage


class UsageRecorded(Event, frozen=True, kw_only=True):
    """One model call as the provider's own reply counted it."""

    type: ClassVar[str] = "usage.recorded"
    aggregate: ClassVar[str] = "usage"
    call_id: str
    provider: str
    model: str
    usage: Usage
    meter: str
    turn: str | None = None


class UsageReconciled(Event, frozen=True, kw_only=True):
    """What the agent said beside what the gateway counted, for one turn."""

    type: ClassVar[str] = "usage.reconciled"
    aggregate: ClassVar[str] = "usage"
    turn: str
    gateway: Usage
    agent: Usage | None = None
    drift_micro_usd: int | None = None


class EgressDenied(Event, frozen=True, kw_only=True):
    """Rate-limited: `count` connections like this one were refused since the last such event."""

    type: ClassVar[str] = "egress.denied"
    aggregate: ClassVar[str] = "egress"
    host: Annotated[str, Meta(max_length=512)]
    port: Annotated[int, Meta(ge=0, le=65535)]
    why: Sentence
    count: Ordinal = 1
