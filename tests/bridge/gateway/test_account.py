"""An org's money: reserved when a key is minted, settled when it ends, and never given twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandreel_bridge.gateway import account as accounts
from sandreel_bridge.gateway.account import Account, Key, Limits, Tally
from sandreel_core.errors import Refused
from tests.support.gateway import key_terms

NOW = datetime(2026, 11, 26, tzinfo=UTC)
LIMITS = Limits(org_micro_usd=1000, user_micro_usd=600)


def key(name: str, budget: int = 400, user: str | None = "ada") -> Key:
    terms = key_terms(name, budget_micro_usd=budget, user=user, expires_at=NOW + timedelta(hours=1))
    return Key(name=name, sha256="", terms=terms, granted_micro_usd=0, created_at=NOW)


def test_what_turns_have_reserved_is_not_given_again() -> None:
    account = accounts.minted(Account(), key("a"), LIMITS, NOW)
    account = accounts.minted(account, key("b"), LIMITS, NOW)
    assert [each.granted_micro_usd for each in account.live()] == [400, 200]  # of the user's 600
    with pytest.raises(Refused, match="the user ada has nothing left of 600 micro-USD for 2026-11"):
        accounts.minted(account, key("c"), LIMITS, NOW)
    account = accounts.minted(account, key("c", user="bob"), LIMITS, NOW)
    with pytest.raises(Refused, match="the org acme has nothing left of 1000"):
        accounts.minted(account, key("d", user="cy"), LIMITS, NOW)


def test_what_was_not_used_is_free_again_and_ending_twice_changes_nothing() -> None:
    account = accounts.minted(Account(), key("a"), LIMITS, NOW)
    account = accounts.ended(account, "a", Tally(calls=1, charged_micro_usd=50), NOW)
    assert (account.spent_micro_usd, account.users_micro_usd) == (50, {"ada": 50})
    assert accounts.ended(account, "a", Tally(charged_micro_usd=400), NOW) == account
    account = accounts.minted(account, key("b", 1000), LIMITS, NOW)
    assert account.keys["b"].granted_micro_usd == 550


def test_a_key_that_is_minted_again_holds_one_reservation() -> None:
    account = accounts.minted(Account(), key("a", 500), LIMITS, NOW)
    account = accounts.minted(account, key("a", 600), LIMITS, NOW)
    assert [each.granted_micro_usd for each in account.live()] == [600]


def test_a_month_begins_with_nothing_spent_and_what_is_live_stays_reserved() -> None:
    account = accounts.minted(Account(), key("a"), LIMITS, NOW)
    account = accounts.minted(account, key("b"), LIMITS, NOW)
    account = accounts.ended(account, "b", Tally(charged_micro_usd=200), NOW)
    later = NOW + timedelta(days=10)
    after = accounts.minted(account, key("c", 1000), LIMITS, later)
    assert after.month == "2026-12"
    assert after.keys["c"].granted_micro_usd == 200


def test_keys_that_ended_long_ago_are_forgotten_and_their_cost_is_not() -> None:
    account = accounts.minted(Account(), key("a"), LIMITS, NOW)
    account = accounts.ended(account, "a", Tally(charged_micro_usd=70), NOW)
    later = accounts.at(account, NOW + accounts.ENDED_FOR + timedelta(seconds=1))
    assert later.keys == {}
    assert later.spent_micro_usd == 70


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 500), st.integers(0, 500), st.booleans()), max_size=30))
def test_no_order_of_turns_reserves_and_spends_more_than_the_limit(steps: list[tuple[int, int, int, bool]]) -> None:
    """As long as no turn is charged more than it was granted."""
    account = Account()
    for number, budget, used, end in steps:
        name = str(number)
        try:
            account = accounts.minted(account, key(name, budget, user=str(number % 2)), LIMITS, NOW)
        except Refused:
            continue
        if end:
            charged = min(used, account.keys[name].granted_micro_usd)
            account = accounts.ended(account, name, Tally(charged_micro_usd=charged), NOW)
        held = sum(each.granted_micro_usd for each in account.live())
        assert account.spent_micro_usd + held <= 1000
        assert max(account.users_micro_usd.values(), default=0) <= 600
