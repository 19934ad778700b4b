"""What `sandreel doctor` asks of the ledger: do agents and the gateway agree, and is every model's price known."""

from __future__ import annotations

from typing import Any

from sandreel_core.cli.check import Check
from sandreel_core.errors import SandreelError
from sandreel_projections.queries import select

_LOOK_WITHIN_S = 10.0
_DRIFTED = """SELECT org, session, turn, drift_micro_usd, drift_tokens, count(*) OVER () AS turns
FROM reel.usage_reconciled WHERE drifted AND stored_at > now() - interval '7 days' ORDER BY stored_at DESC LIMIT 1"""
_UNPRICED = """SELECT provider_name, response_model, count(*) AS calls FROM reel.usage_calls
WHERE cost_micro_usd IS NULL AND stored_at > now() - interval '7 days' GROUP BY 1, 2 ORDER BY calls DESC LIMIT 1"""


async def check(dsn: str) -> list[Check]:
    """Never raises. Nothing where the views cannot be asked: the check of the views says why."""
    try:
        drifted, unpriced = await _rows(dsn, _DRIFTED), await _rows(dsn, _UNPRICED)
    except SandreelError:
        return []
    return [_drift(drifted), _prices(unpriced)]


def _drift(rows: list[tuple[Any, ...]]) -> Check:
    name = "usage of agents and gateway"
    if not rows:
        return Check(name=name, level="ok", found="they agree")
    org, session, turn, micro_usd, tokens, turns = rows[0]
    apart = micro_usd if micro_usd is not None else tokens
    by = f"${abs(micro_usd) / 1e6:.4f}" if micro_usd is not None else f"{abs(tokens):,} tokens"
    found = f"they disagree on {turns} turn{'s' if turns > 1 else ''} of the last 7 days; in the newest the agent says {by} {'less' if apart > 0 else 'more'}"
    mend = f"look at it: sandreel usage --org {org} --session {session} --turn {turn}; a call that is not in the ledger"
    return Check(name=name, level="warn", found=found, mend=f"{mend} went past the gateway, or its reply was cut off")


def _prices(rows: list[tuple[Any, ...]]) -> Check:
    name = "prices of models"
    if not rows:
        return Check(name=name, level="ok", found="every call of the last 7 days has a price")
    provider, model, calls = rows[0]
    found = f"{calls} call{'s' if calls > 1 else ''} of {provider}'s {model} in the last 7 days without a known price"
    mend = "add the model to the gateway's price table: what has no price counts against no budget"
    return Check(name=name, level="warn", found=found, mend=mend)


async def _rows(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    async with select(dsn, statement, timeout_s=_LOOK_WITHIN_S) as answer:
        return [row async for row in answer.rows]
