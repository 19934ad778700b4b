"""What one call used, from what was seen of its reply. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sandreel_bridge.gateway.call import Call
from sandreel_bridge.gateway.port import Dialect, KeyTerms
from sandreel_bridge.gateway.prices import PriceTable
from sandreel_bridge.gateway.tokens import Tokens
from sandreel_core.contract.turn import Usage
from sandreel_core.contract.usage import UsageRecorded

# Who counted: in `usage.recorded`.
METER = "sandreel"
# Of a model's name: what a provider says is no reason for an event that the log does not take.
MAX_MODEL_CHARS = 256


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call went.

    status    of the provider's reply; None when none came
    sent      whether the provider has had the whole request: only then can it cost anything
    whole     whether the reply came to its end
    tokens    what it told, None for nothing; model: that answered, by its own word
    least_output  tokens that came at least, where it did not tell
    standard  whether the tokens are all that it costs
    """

    status: int | None
    sent: bool
    whole: bool
    tokens: Tokens | None
    model: str | None
    least_output: int
    duration_ms: int
    standard: bool = True


def estimate_micro_usd(prices: PriceTable, provider: Dialect, call: Call) -> int | None:
    """What the call may cost at most, roughly; None when its model has no known price."""
    price = prices.price(provider, call.model)
    return None if price is None else price.cost_micro_usd(Tokens(input=call.most_input, output=call.most_output))


def recorded(
    call_id: str, key: str, terms: KeyTerms, provider: Dialect, call: Call, outcome: Outcome, prices: PriceTable
) -> UsageRecorded:
    """The event. Its usage is what the provider told, no more; its charge is what the budget is judged by: where the reply
    did not tell all, at least its request and what came of it. A reply that costs more than its tokens has no known cost."""
    model = (outcome.model or call.model)[:MAX_MODEL_CHARS]
    failed = outcome.status is not None and outcome.status >= 400
    tokens = outcome.tokens or Tokens()
    price = prices.price(provider, model)
    if failed and outcome.tokens is None:
        cost: int | None = 0  # a provider charges nothing for an error
    elif outcome.tokens is None or price is None or not outcome.standard:
        cost = None
    else:
        cost = price.cost_micro_usd(tokens)
    charge = cost or 0
    charging = price or prices.price(provider, call.model)
    if charging is not None and outcome.sent and not failed and (outcome.tokens is None or not outcome.whole):
        least = Tokens(
            input=tokens.input if outcome.tokens else call.most_input,
            output=max(tokens.output, min(outcome.least_output, call.most_output)),
            cache_read=tokens.cache_read,
            cache_write=tokens.cache_write,
            cache_write_1h=tokens.cache_write_1h,
        )
        charge = max(charge, charging.cost_micro_usd(least))
    if cost is None and charging is not None and outcome.tokens is not None:
        charge = max(charge, charging.cost_micro_usd(tokens))
    return UsageRecorded(
        call_id=call_id,
        provider=provider,
        model=model,
        asked_model=call.model,
        usage=tokens.usage(cost) if outcome.tokens or failed else Usage(),
        meter=METER,
        turn=terms.turn,
        key=key,
        user=terms.user,
        prices=prices.version,
        http_status=outcome.status,
        duration_ms=outcome.duration_ms,
        complete=outcome.whole,
        charged_micro_usd=None if charge == cost else charge,
    )
