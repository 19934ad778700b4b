"""An org's money and keys, as one document: so that a key and what it reserves change together. Pure.

A turn's budget is reserved from its org's and its user's when its key is minted, and settled when the key ends: what was charged
is spent, the rest is free again. Budgets are of calendar months (UTC); a key counts in the month in which it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from sandreel_bridge.gateway.port import KeyStanding, KeyTerms
from sandreel_core.contract.message import Count
from sandreel_core.contract.turn import Usage
from sandreel_core.contract.usage import UsageRecorded
from sandreel_core.errors import Refused

# Keys that have ended are remembered for whoever asks for their last standing after a crash: so many an org, and so long.
MAX_ENDED = 256
ENDED_FOR = timedelta(days=2)


class Limits(Struct, frozen=True, kw_only=True):
    """Of an org, a month. None: no limit."""

    org_micro_usd: int | None = None
    user_micro_usd: int | None = None


class Tally(Struct, frozen=True, kw_only=True):
    """What a key has used. `charged_micro_usd` is what its budget is judged by: the cost, or an estimate where it is not known."""

    calls: Count = 0
    usage: Usage = Usage(cost_micro_usd=0)
    charged_micro_usd: Count = 0

    def plus(self, event: UsageRecorded) -> Tally:
        """With one more call. The sum has no cost as soon as one call has none."""
        one, cost = event.usage, event.usage.cost_micro_usd
        before = self.usage.cost_micro_usd
        charged = event.charged_micro_usd if event.charged_micro_usd is not None else cost
        return Tally(
            calls=self.calls + 1,
            usage=Usage(
                input_tokens=self.usage.input_tokens + one.input_tokens,
                output_tokens=self.usage.output_tokens + one.output_tokens,
                cache_read_input_tokens=self.usage.cache_read_input_tokens + one.cache_read_input_tokens,
                cache_creation_input_tokens=self.usage.cache_creation_input_tokens + one.cache_creation_input_tokens,
                cost_micro_usd=None if before is None or cost is None else before + cost,
            ),
            charged_micro_usd=self.charged_micro_usd + (charged or 0),
        )


class Key(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A virtual key. Of its value only the SHA-256 is kept. `tally` is its last, once it has ended."""

    name: str
    sha256: str
    terms: KeyTerms
    granted_micro_usd: Count
    created_at: datetime
    ended_at: datetime | None = None
    tally: Tally = Tally()

    @property
    def live(self) -> bool:
        return self.ended_at is None

    def standing(self, tally: Tally) -> KeyStanding:
        return KeyStanding(
            name=self.name,
            org=self.terms.org,
            session=self.terms.session,
            turn=self.terms.turn,
            created_at=self.created_at,
            live=self.live,
            calls=tally.calls,
            usage=tally.usage,
            budget_micro_usd=self.granted_micro_usd,
            charged_micro_usd=tally.charged_micro_usd,
        )


class Left(Struct, frozen=True):
    """What is left of one limit."""

    whose: str
    limit_micro_usd: int
    micro_usd: int


class Account(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one org. `month`: what the spent sums are of, `2026-11`."""

    month: str = ""
    spent_micro_usd: Count = 0
    users_micro_usd: dict[str, Count] = {}
    keys: dict[str, Key] = {}

    def live(self) -> Iterable[Key]:
        return (key for key in self.keys.values() if key.live)

    def lefts(self, limits: Limits, org: str, user: str | None, *, but: str = "") -> list[Left]:
        """What may still be reserved; not counting what the key `but` has reserved. Empty: as much as one wants."""
        found = []
        if limits.org_micro_usd is not None:
            held = sum(key.granted_micro_usd for key in self.live() if key.name != but)
            found.append(
                Left(f"the org {org}", limits.org_micro_usd, limits.org_micro_usd - self.spent_micro_usd - held)
            )
        if limits.user_micro_usd is not None and user is not None:
            mine = (key for key in self.live() if key.name != but and key.terms.user == user)
            gone = self.users_micro_usd.get(user, 0) + sum(key.granted_micro_usd for key in mine)
            found.append(Left(f"the user {user}", limits.user_micro_usd, limits.user_micro_usd - gone))
        return found


def at(account: Account, now: datetime) -> Account:
    """The account as it is now: with the month's sums, and without keys that ended long ago."""
    month = f"{now:%Y-%m}"
    ended = sorted((key for key in account.keys.values() if key.ended_at), key=lambda key: key.ended_at or now)
    kept = {key.name for key in ended[-MAX_ENDED:] if (key.ended_at or now) > now - ENDED_FOR}
    keys = {name: key for name, key in account.keys.items() if key.live or name in kept}
    if month == account.month:
        return replace(account, keys=keys)
    return Account(month=month, keys=keys)


def minted(account: Account, key: Key, limits: Limits, now: datetime) -> Account:
    """With the key, whose granted budget is what was asked for or what is left. One of its name is replaced; what that
    has used stays its own. Raises Refused (BUDGET_SPENT)."""
    account = at(account, now)
    before = account.keys.get(key.name)
    if before is not None and before.live:
        key = replace(key, created_at=before.created_at)
    granted = key.terms.budget_micro_usd
    for left in account.lefts(limits, key.terms.org, key.terms.user, but=key.name):
        if left.micro_usd <= 0:
            raise Refused(
                "BUDGET_SPENT",
                f"{left.whose} has nothing left of {left.limit_micro_usd} micro-USD for {account.month}: spent, or held by turns under way",
            )
        granted = min(granted, left.micro_usd)
    return replace(account, keys=account.keys | {key.name: replace(key, granted_micro_usd=granted)})


def ended(account: Account, name: str, tally: Tally, now: datetime) -> Account:
    """With that key at its end, and what it was charged spent. Idempotent."""
    account = at(account, now)
    key = account.keys.get(name)
    if key is None or not key.live:
        return account
    users: Mapping[str, int] = account.users_micro_usd
    if key.terms.user is not None:
        users = {**users, key.terms.user: users.get(key.terms.user, 0) + tally.charged_micro_usd}
    return replace(
        account,
        spent_micro_usd=account.spent_micro_usd + tally.charged_micro_usd,
        users_micro_usd=dict(users),
        keys=account.keys | {name: replace(key, ended_at=now, tally=tally)},
    )
