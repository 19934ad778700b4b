"""What a call is charged and what the ledger has of it, from how it went."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandreel_bridge.gateway.call import read_call
from sandreel_bridge.gateway.dialect import Route
from sandreel_bridge.gateway.meter import Outcome, estimate_micro_usd, recorded
from sandreel_bridge.gateway.orgs import Orgs
from sandreel_bridge.gateway.settings import Settings
from sandreel_bridge.gateway.tokens import Tokens
from sandreel_core.contract.usage import UsageRecorded
from tests.support.gateway import key_terms

PRICES = Orgs(Settings(anthropic_api_key="k")).prices
NOW = datetime(2026, 11, 26, tzinfo=UTC)
TERMS = key_terms(expires_at=NOW + timedelta(hours=1))
MESSAGES = Route("anthropic", "messages", "/v1/messages")
# At 3, 15 and (written into a cache for five minutes, for an hour) 3.75 and 6 USD a million.
ASKED: dict[str, Any] = {"model": "claude-sonnet-4-5", "max_tokens": 1000, "messages": "x" * 4000}
WHOLE = Outcome(
    status=200, sent=True, whole=True, tokens=Tokens(100, 20), model=None, least_output=3, duration_ms=10_000
)


def told(outcome: Outcome, **more: Any) -> UsageRecorded:
    call = read_call(MESSAGES, json.dumps(ASKED | more).encode())
    return recorded("c", "k", TERMS, "anthropic", call, outcome, PRICES)


def test_a_call_that_told_everything_costs_that_and_is_charged_that() -> None:
    event = told(WHOLE)
    assert (event.usage.cost_micro_usd, event.charged_micro_usd, event.web_searches) == (600, None, 0)
    event = told(replace(WHOLE, given_up=True, duration_ms=10**9))
    assert (event.usage.cost_micro_usd, event.charged_micro_usd) == (600, None)


def test_a_search_is_in_the_cost_and_its_number_in_the_event() -> None:
    event = told(replace(WHOLE, tokens=Tokens(100, 20, searches=2)))
    assert (event.usage.cost_micro_usd, event.charged_micro_usd, event.web_searches) == (20_600, None, 2)
    event = told(replace(WHOLE, tokens=Tokens(100, 20, searches=2), standard=False))
    assert (event.usage.cost_micro_usd, event.charged_micro_usd, event.web_searches) == (None, 600, 2)


@pytest.mark.parametrize(
    ("how", "output"),
    [
        ({}, 3),  # the provider failed, or was silent for too long: it is not known to have written anything
        ({"given_up": True}, 300),  # the sandbox left after ten seconds
        ({"given_up": True, "least_output": 500}, 500),
        ({"given_up": True, "duration_ms": 3_600_000}, 1000),  # no more than it was allowed to write
    ],
)
def test_hanging_up_on_a_silent_reply_is_charged_what_was_written_meanwhile(how: dict[str, Any], output: int) -> None:
    event = told(replace(WHOLE, status=None, whole=False, tokens=None, **how))
    assert event.usage.cost_micro_usd is None
    size = len(json.dumps(ASKED, separators=(",", ":")))
    assert event.charged_micro_usd == pytest.approx(size // 4 * 3 + output * 15, abs=30)


def test_what_is_reserved_is_for_a_dense_request_that_a_cache_takes() -> None:
    def held(**more: Any) -> int:
        call = read_call(MESSAGES, json.dumps(ASKED | more).encode())
        return estimate_micro_usd(PRICES, "anthropic", call) or 0

    assert held() == pytest.approx(4000 // 2 * 3.75 + 1000 * 15, rel=0.03)
    hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert held(system=[hour]) == pytest.approx(4000 // 2 * 6 + 1000 * 15, rel=0.03)
    call = replace(read_call(MESSAGES, json.dumps(ASKED).encode()), model="unknown")
    assert estimate_micro_usd(PRICES, "anthropic", call) is None
