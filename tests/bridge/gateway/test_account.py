"""An org's money: reserved when a key is minted, settled when it ends, and never given twice, whatever the clock says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandreel_bridge.gateway import account as accounts
from sandreel_bridge.gateway.account import Account, Key, Limits, Tally
from sandreel_bridge.gateway.months import MAX_OTHERS
from sandreel_bridge.gateway.users import Users
from sandreel_core.errors import Refused
from tests.support.gateway import key_terms

NOW = datetime(2026, 11, 26, tzinfo=UTC)
LIMITS = Limits(org_micro_usd=1000, user_micro_usd=600)
NONE = Limits()


def key(name: str, budget: int = 400, user: str | None = "ada", since: datetime = NOW) -> Key:
    terms = key_terms(name, budget_micro_usd=budget, user=user, expires_at=NOW + timedelta(hours=1))
    return Key(name=name, sha256="", terms=terms, granted_micro_usd=0, created_at=since)


def charged(account: Account, name: str, micro_usd: int, now: datetime) -> Account:
    """A key that was minted and has ended, charged so much."""
    account = accounts.minted(account, key(name), NONE, now)
    return accounts.ended(account, name, Tally(calls=1, charged_micro_usd=micro_usd), now)


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
    assert account.spent_micro_usd == {"2026-11": 50}
    assert accounts.ended(account, "a", Tally(charged_micro_usd=400), NOW) == account
    account = accounts.minted(account, key("b", 1000), LIMITS, NOW, user_micro_usd=50)
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
    assert after.spent(later) == 0
    assert after.keys["c"].granted_micro_usd == 200


@pytest.mark.parametrize("wrong", [datetime(2026, 11, 30, 23, 59, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)])
def test_a_clock_that_goes_back_over_a_months_end_gives_nothing_twice(wrong: datetime) -> None:
    right = datetime(2026, 12, 1, tzinfo=UTC)
    account = charged(charged(Account(), "a", 700, wrong.replace(year=2026)), "b", 200, right)
    assert account.spent(right) == 200
    account = charged(account, "c", 50, wrong)
    assert account.spent(wrong) >= 250, "what was spent later has been spent all the same"
    if wrong.year == 2026:
        assert account.spent(wrong) == 950
    assert account.spent(right) == 200


def test_a_clock_that_was_ahead_hides_nothing_and_counts_until_then() -> None:
    ahead = datetime(2031, 3, 1, tzinfo=UTC)
    account = charged(charged(Account(), "a", 700, NOW), "b", 20, ahead)
    assert account.spent(ahead) == 20
    assert account.spent(NOW) == 720
    account = charged(account, "c", 100, NOW)
    december = datetime(2026, 12, 2, tzinfo=UTC)
    account = charged(account, "d", 5, december)
    assert (account.spent(NOW), account.spent(december), account.spent(ahead)) == (825, 25, 20)


@given(st.lists(st.tuples(st.integers(2000, 2040), st.integers(1, 12), st.integers(0, 99)), max_size=16))
def test_no_clock_makes_an_account_grow_nor_the_present_forgotten(steps: list[tuple[int, int, int]]) -> None:
    account, users = Account(), Users()
    for number, (year, month, micro_usd) in enumerate(steps):
        now = datetime(year, month, 3, tzinfo=UTC)
        before, user_before = account.spent(now), users.spent("ada", now)
        account = charged(account, str(number), micro_usd, now)
        users = users.plus("ada", key(str(number), since=now), micro_usd, now, ())
        assert account.spent(now) >= micro_usd
        assert users.spent("ada", now) >= micro_usd
        if len(account.spent_micro_usd) <= MAX_OTHERS:  # nothing was forgotten yet
            assert account.spent(now) == before + micro_usd
            assert users.spent("ada", now) == user_before + micro_usd
        assert len(accounts.at(account, now).spent_micro_usd) <= MAX_OTHERS + 1
        assert len(users.spent_micro_usd) <= MAX_OTHERS + 1


def test_live_keys_have_a_bound_that_is_said_and_every_one_can_end() -> None:
    account, max_bytes = Account(), 20_000
    while len(msgspec.json.encode(account)) + 500 < max_bytes // 2:
        account = accounts.minted(account, key(f"t{len(account.keys)}"), NONE, NOW, max_bytes=max_bytes)
    names = [each.name for each in account.live()]
    more = key("more" + "x" * 500)
    with pytest.raises(Refused, match=rf"TOO_MANY_KEYS: {len(names)} keys of the org acme are live, and no more fit"):
        accounts.minted(account, more, NONE, NOW, max_bytes=max_bytes)
    for number, name in enumerate(names):
        now = NOW + timedelta(seconds=number)
        account = accounts.ended(account, name, Tally(calls=1, charged_micro_usd=2), now, max_bytes=max_bytes)
        assert len(msgspec.json.encode(account)) <= max_bytes
        assert account.keys[name].tally.charged_micro_usd == 2, "the last ones are those that are asked for"
    assert account.spent(NOW) == 2 * len(names)
    accounts.minted(account, more, NONE, NOW, max_bytes=max_bytes)


def test_what_a_user_has_spent_counts_once_however_often_it_is_written() -> None:
    first, again = key("a"), key("a", since=NOW + timedelta(hours=1))
    users = Users().plus("ada", first, 70, NOW, {"a"})
    assert users.plus("ada", first, 70, NOW, {"a"}) is users
    # The account was not written: the key went on, and ends once more.
    users = users.plus("ada", first, 100, NOW, {"a"})
    assert users.spent("ada", NOW) == 100
    users = users.plus("bob", key("b", user="bob"), 5, NOW, {"a", "b"})
    assert set(users.charged) == {"a", "b"}
    users = users.plus("ada", again, 30, NOW, {"a"})
    assert (users.spent("ada", NOW), users.spent("bob", NOW), users.spent("cy", NOW)) == (130, 5, 0)
    assert set(users.charged) == {"a"}, "b has ended in the account"


def test_keys_that_ended_long_ago_are_forgotten_and_their_cost_is_not() -> None:
    account = accounts.minted(Account(), key("a"), LIMITS, NOW)
    account = accounts.ended(account, "a", Tally(charged_micro_usd=70), NOW)
    later = accounts.at(account, NOW + accounts.ENDED_FOR + timedelta(seconds=1))
    assert later.keys == {}
    assert later.spent(NOW) == 70


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 500), st.integers(0, 500), st.booleans()), max_size=30))
def test_no_order_of_turns_reserves_and_spends_more_than_the_limit(steps: list[tuple[int, int, int, bool]]) -> None:
    """As long as no turn is charged more than it was granted."""
    account, users = Account(), Users()
    for at, (number, budget, used, end) in enumerate(steps):
        name, user, since = str(number), str(number % 2), NOW + timedelta(seconds=at)
        try:
            account = accounts.minted(
                account, key(name, budget, user, since), LIMITS, NOW, user_micro_usd=users.spent(user, NOW)
            )
        except Refused:
            continue
        if end:
            charge = min(used, account.keys[name].granted_micro_usd)
            users = users.plus(user, account.keys[name], charge, NOW, {each.name for each in account.live()})
            account = accounts.ended(account, name, Tally(charged_micro_usd=charge), NOW)
        held = sum(each.granted_micro_usd for each in account.live())
        assert account.spent(NOW) + held <= 1000
        assert max(users.spent(each, NOW) for each in "01") <= 600
        assert sum(users.spent(each, NOW) for each in "01") == account.spent(NOW)
