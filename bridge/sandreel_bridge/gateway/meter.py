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
# What a model writes in a second at least (40 to 150 tokens in 2026): for a reply that nobody waited for, and that may be billed.
_TOKENS_A_SECOND = 30
# Asked for in `cache_control`, which has no other use for this value; whoever means another thing by it reserves more.
_FOR_AN_HOUR = b'"1h"'


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call went.

    status    of the provider's reply; None when none came
    sent      whether the provider has had the whole request: only then can it cost anything
    whole     whether the reply came to its end
    tokens    what it told, None for nothing; model: that answered, by its own word
    least_output  tokens that came at least, where it did not tell
    standard  whether tokens and searches are all that it costs
    given_up  whether the sandbox left, or the call was cut, while the provider was at work
    """

    status: int | None
    sent: bool
    whole: bool
    tokens: Tokens | None
    model: str | None
    least_output: int
    duration_ms: int
    standard: bool = True
    given_up: bool = False


def estimate_micro_usd(prices: PriceTable, provider: Dialect, call: Call) -> int | None:
    """What the call may cost at most, roughly; None when its model has no known price."""
    price = prices.price(provider, call.model)
    if price is None:
        return None
    return price.most_micro_usd(call.most_input, call.most_output, for_an_hour=_FOR_AN_HOUR in call.body)


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
            input=tokens.input if outcome.tokens else call.least_input,
            output=max(tokens.output, min(_least_output(outcome), call.most_output)),
            cache_read=tokens.cache_read,
            cache_write=tokens.cache_write,
            cache_write_1h=tokens.cache_write_1h,
        )
        charge = max(charge, charging.tokens_micro_usd(least))
    if cost is None and charging is not None and outcome.tokens is not None:
        charge = max(charge, charging.tokens_micro_usd(tokens))
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
        web_searches=tokens.searches,
    )


def _least_output(outcome: Outcome) -> int:
    """Also of a reply that was silent: a model that thinks, or one that does not stream."""
    meanwhile = outcome.duration_ms * _TOKENS_A_SECOND // 1000 if outcome.given_up else 0
    return max(outcome.least_output, meanwhile)
