"""Messages of the two meters at a session's border: model calls (gateway) and refused connections (egress)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from sandreel_core.contract.message import Count, Event, Ordinal, Sentence
from sandreel_core.contract.turn import Usage


class UsageRecorded(Event, frozen=True, kw_only=True):
    """One model call as the provider's own reply counted it.

    model      that answered, by the provider's name; `asked_model` what the program asked for
    usage      its cost is absent when no price is known, never zero for that
    meter      which gateway counted it; `key` the virtual key that paid
    prices     the version of the price table that the cost was worked out with
    complete   whether the reply came to its end; what a reply that was cut off did not tell is not counted
    charged_micro_usd  what the key's budget was charged, where that is not the cost: an estimate, of what was not told
    web_searches  that the provider has run and charges for beside the tokens; their price is in the cost
    """

    type: ClassVar[str] = "usage.recorded"
    aggregate: ClassVar[str] = "usage"
    call_id: str
    provider: str
    model: str
    usage: Usage
    meter: str
    turn: str | None = None
    key: str | None = None
    user: str | None = None
    asked_model: str | None = None
    prices: str | None = None
    http_status: int | None = None
    duration_ms: Count | None = None
    complete: bool = True
    charged_micro_usd: Count | None = None
    web_searches: Count = 0


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
