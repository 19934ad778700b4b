"""The folds behind `reel.usage_ledger` and `reel.usage_turns`: each model call once, and of each turn what its agent said
beside what the gateway counted. Pure and total."""

from __future__ import annotations

from datetime import UTC, date, datetime
from hashlib import sha256

from msgspec import Struct

from sandreel_core.contract import usage as u
from sandreel_core.contract.turn import Usage
from sandreel_projections.change import Change, aware, bigint, integer, text
from sandreel_projections.turns import tokens

Key = tuple[str, str, str]

# An index holds no more than about 2,700 bytes of a key; a gateway's own ids have some 36 characters.
MAX_ID_CHARS = 256
# A turn has drifted if the two differ by more than both: what an agent does not count (a reply that was cut off, a helper
# that names the conversation) is a small part of a turn, or small in all.
DRIFT_SHARE = 0.05
DRIFT_MICRO_USD = 10_000
DRIFT_TOKENS = 1_000


class CallRow(Struct, frozen=True, kw_only=True):
    """One row of `reel.usage_calls`: the fields are its columns, in their order, and are explained there."""

    org: str
    session: str
    call_id: str
    turn: str | None
    user_id: str | None
    provider_name: str
    request_model: str | None
    response_model: str
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    cost_micro_usd: int | None
    prices: str | None
    meter: str
    key_name: str | None
    http_status: int | None
    duration_ms: int | None
    complete: bool
    correlation_id: str | None
    day: date
    said_at: datetime
    stored_at: datetime
    partition: int
    cursor: str
    charged_micro_usd: int | None
    web_searches: int


class ReconciledRow(Struct, frozen=True, kw_only=True):
    """One row of `reel.usage_reconciled`: the fields are its columns, in their order, and are explained there."""

    org: str
    session: str
    turn: str
    gateway_input_tokens: int
    gateway_output_tokens: int
    gateway_cache_read_input_tokens: int
    gateway_cache_creation_input_tokens: int
    gateway_cost_micro_usd: int | None
    agent_input_tokens: int | None = None
    agent_output_tokens: int | None = None
    agent_cache_read_input_tokens: int | None = None
    agent_cache_creation_input_tokens: int | None = None
    agent_cost_micro_usd: int | None = None
    drift_tokens: int | None
    drift_micro_usd: int | None
    drifted: bool | None
    stored_at: datetime
    cursor: str


def call_key(change: Change) -> Key | None:
    data = change.data
    return (change.where.org, change.where.session, _id(data.call_id)) if isinstance(data, u.UsageRecorded) else None


def call(before: CallRow | None, change: Change) -> tuple[CallRow | None, None, str]:
    """The first of a call is the call: a gateway that is not sure whether it was stored sends it again."""
    return before or _call(change), None, ""


def reconciled_key(change: Change) -> Key | None:
    data = change.data
    return (change.where.org, change.where.session, _id(data.turn)) if isinstance(data, u.UsageReconciled) else None


def reconciled(before: ReconciledRow | None, change: Change) -> tuple[ReconciledRow | None, None, str]:
    """The newest holds: whoever reconciles a turn again has counted more."""
    return _reconciled(change), None, ""


def drifted(gateway: Usage, agent: Usage | None) -> bool | None:
    """Whether what the agent said and what the gateway counted are too far apart: by cost where both know it, else by
    tokens. None where the agent said nothing."""
    if agent is None:
        return None
    if gateway.cost_micro_usd is not None and agent.cost_micro_usd is not None:
        return _apart(gateway.cost_micro_usd, agent.cost_micro_usd, DRIFT_MICRO_USD)
    return _apart(_tokens(gateway), _tokens(agent), DRIFT_TOKENS)


def _apart(counted: int, said: int, least: int) -> bool:
    return abs(said - counted) > max(least, counted * DRIFT_SHARE)


def _tokens(usage: Usage) -> int:
    return usage.input_tokens + usage.output_tokens


def _call(change: Change) -> CallRow:
    data: u.UsageRecorded = change.data
    where, event = change.where, change.envelope
    return CallRow(
        org=where.org,
        session=where.session,
        call_id=_id(data.call_id),
        turn=text(data.turn),
        user_id=text(data.user),
        provider_name=text(data.provider) or "",
        request_model=text(data.asked_model),
        response_model=text(data.model) or "",
        **tokens(data.usage),  # type: ignore[arg-type] # of these only the cost may be None
        prices=text(data.prices),
        meter=text(data.meter) or "",
        key_name=text(data.key),
        http_status=integer(data.http_status),
        duration_ms=bigint(data.duration_ms),
        complete=data.complete,
        correlation_id=text(event.correlationid),
        day=change.at.astimezone(UTC).date(),
        said_at=aware(event.time),
        stored_at=change.at,
        partition=where.partition,
        cursor=change.cursor,
        charged_micro_usd=bigint(data.charged_micro_usd),
        web_searches=bigint(data.web_searches) or 0,
    )


def _reconciled(change: Change) -> ReconciledRow:
    data: u.UsageReconciled = change.data
    gateway, agent = data.gateway, data.agent
    said: dict[str, int | None] = {f"gateway_{name}": value for name, value in tokens(gateway).items()}
    if agent is not None:
        said |= {f"agent_{name}": value for name, value in tokens(agent).items()}
    return ReconciledRow(
        org=change.where.org,
        session=change.where.session,
        turn=_id(data.turn),
        **said,  # type: ignore[arg-type] # of the gateway's only the cost may be None
        drift_tokens=None if agent is None else bigint(_tokens(gateway) - _tokens(agent)),
        drift_micro_usd=bigint(data.drift_micro_usd),
        drifted=drifted(gateway, agent),
        stored_at=change.at,
        cursor=change.cursor,
    )


def _id(value: str) -> str:
    """As a part of a key; one that is too long is told apart by its hash."""
    if len(value) > MAX_ID_CHARS:
        value = f"{value[:64]}…{sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return text(value) or ""
