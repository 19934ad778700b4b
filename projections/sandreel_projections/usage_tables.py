"""The tables behind `reel.usage_ledger`, its roll-ups, and `reel.usage_turns`.

Columns have the names of OpenTelemetry's attributes of generative AI without their first words, and units where those
have none; `gen_ai.usage.input_tokens` is `input_tokens`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Index, Table

from sandreel_projections.columns import count, date, flag, metadata, number, text, time

_COST = "millionths of a US dollar, an integer; null: the price is not known, which is never zero"


def _tokens(who: str, *, null: bool = False) -> list[Column[Any]]:
    prefix = f"{who}_" if who else ""
    return [
        count(f"{prefix}input_tokens", "tokens that went in, those from and to a cache among them (gen_ai.usage.input_tokens)", null=null),
        count(f"{prefix}output_tokens", "tokens that came out, thoughts among them (gen_ai.usage.output_tokens)", null=null),
        count(f"{prefix}cache_read_input_tokens", "of input_tokens, those read from a cache (gen_ai.usage.cache_read.input_tokens)", null=null),
        count(f"{prefix}cache_creation_input_tokens", "of input_tokens, those put into a cache (gen_ai.usage.cache_creation.input_tokens)", null=null),
        count(f"{prefix}cost_micro_usd", _COST, null=True),
    ]  # fmt: skip


usage_calls = Table(
    "usage_calls",
    metadata,
    text("org", "organisation", key=True),
    text("session", "session that the call came from", key=True),
    text("call_id", "id of the call; one that was told twice is here once", key=True),
    text("turn", "turn that it was made in"),
    text("user_id", "user whose budget it counts against"),
    text("provider_name", "who answered (gen_ai.provider.name)", null=False),
    text("request_model", "model that was asked for (gen_ai.request.model)"),
    text("response_model", "model that answered, by the provider's name (gen_ai.response.model)", null=False),
    *_tokens(""),
    text("prices", "version of the price table that the cost was worked out with"),
    text("meter", "which gateway counted it", null=False),
    text("key_name", "virtual key that paid; its name is no secret"),
    number("http_status", "what the provider answered with", null=True),
    count("duration_ms", "milliseconds from the request to the end of the reply", null=True),
    flag("complete", "whether the reply came to its end; what a cut one did not tell is not counted"),
    text("correlation_id", "turn or root command that it belongs to"),
    date("day", "the day in UTC of stored_at: what roll-ups go by"),
    time("said_at", "when it was counted, by the gateway's clock", null=False),
    time("stored_at", "when the stream server stored it", null=False),
    number("partition", "partition of the log"),
    text("cursor", "where it stands in the log: epoch:partition:sequence", null=False),
    count(
        "charged_micro_usd",
        "what the key's budget was charged, where that is not the cost: an estimate of what was not told",
        null=True,
    ),
    count(
        "web_searches",
        "searches of the web that the provider ran and charges for beside the tokens; their price is in the cost",
    ),
    Index("usage_calls_by_day", "org", "day"),
    Index("usage_calls_by_turn", "org", "session", "turn"),
    comment="One row per model call, as the gateway counted it. reel.usage_ledger adds the turn's agent and command.",
)

usage_reconciled = Table(
    "usage_reconciled",
    metadata,
    text("org", "organisation", key=True),
    text("session", "session", key=True),
    text("turn", "turn", key=True),
    *_tokens("gateway"),
    *_tokens("agent", null=True),
    count("drift_tokens", "input and output tokens that the gateway counted less those that the agent said; null: it said none", null=True),
    count("drift_micro_usd", "the same of the cost, as usage.reconciled says; null: one of the two is not known", null=True),
    flag("drifted", "whether they differ by more than 5 % and a cent, or, where a cost is not known, 5 % and 1,000 tokens", null=True),
    time("stored_at", "when the stream server stored the newest usage.reconciled", null=False),
    text("cursor", "where it stands in the log: epoch:partition:sequence", null=False),
    Index("usage_reconciled_by_time", "org", "stored_at"),
    comment="Of each turn what its agent said beside what the gateway counted, from usage.reconciled, the newest.",
)  # fmt: skip
