"""An org's money and keys, as one document: so that a key and what it reserves change together. Pure.

A turn's budget is reserved from its org's and its user's when its key is minted, and settled when the key ends: what was charged
is spent, the rest is free again. Budgets are of calendar months (`months`); a key counts in the month in which it ends. What each user
has spent stands in documents of its own (`users`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sandreel_bridge.gateway.months import counting, kept, month_of
from sandreel_bridge.gateway.port import KeyStanding, KeyTerms
from sandreel_core.contract.message import Count
from sandreel_core.contract.turn import Usage
from sandreel_core.contract.usage import UsageRecorded
from sandreel_core.errors import Refused

# Keys that have ended are remembered for whoever asks for their last standing after a crash: so many an org, and so long.
MAX_ENDED = 256
ENDED_FOR = timedelta(days=2)
# What NATS takes in a message where nobody has said otherwise.
MAX_DOCUMENT_BYTES = 1 << 20


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
    """Of one org. `spent_micro_usd`: by month."""

    spent_micro_usd: dict[str, Count] = {}
    keys: dict[str, Key] = {}

    def live(self) -> Iterable[Key]:
        return (key for key in self.keys.values() if key.live)

    def spent(self, now: datetime) -> int:
        """What counts in the month of `now`."""
        return sum(counting(self.spent_micro_usd, now))

    def lefts(self, limits: Limits, key: Key, user_micro_usd: int, now: datetime) -> list[Left]:
        """What the key may still reserve; not counting what one of its name has reserved. `user_micro_usd`: what its user has
        spent. Empty: as much as one wants."""
        found, org, user = [], key.terms.org, key.terms.user
        others = [each for each in self.live() if each.name != key.name]
        if limits.org_micro_usd is not None:
            gone = self.spent(now) + sum(each.granted_micro_usd for each in others)
            found.append(Left(f"the org {org}", limits.org_micro_usd, limits.org_micro_usd - gone))
        if limits.user_micro_usd is not None and user is not None:
            gone = user_micro_usd + sum(each.granted_micro_usd for each in others if each.terms.user == user)
            found.append(Left(f"the user {user}", limits.user_micro_usd, limits.user_micro_usd - gone))
        return found


def at(account: Account, now: datetime) -> Account:
    """The account as it is now: without months that count no more, and without keys that ended long ago."""
    names = {key.name for ended_at, key in _ends(account)[-MAX_ENDED:] if ended_at > now - ENDED_FOR}
    keys = {name: key for name, key in account.keys.items() if key.live or name in names}
    return Account(spent_micro_usd=kept(account.spent_micro_usd, now), keys=keys)


def minted(
    account: Account,
    key: Key,
    limits: Limits,
    now: datetime,
    *,
    user_micro_usd: int = 0,
    max_bytes: int = MAX_DOCUMENT_BYTES,
) -> Account:
    """With the key, whose granted budget is what was asked for or what is left. One of its name is replaced; what that
    has used stays its own.

    user_micro_usd  what the key's user has spent
    max_bytes       that a document may have; live keys take half of it at most, so that their ends fit
    Raises Refused (BUDGET_SPENT, TOO_MANY_KEYS).
    """
    account = at(account, now)
    before = account.keys.get(key.name)
    if before is not None and before.live:
        key = replace(key, created_at=before.created_at)
    granted = key.terms.budget_micro_usd
    for left in account.lefts(limits, key, user_micro_usd, now):
        if left.micro_usd <= 0:
            raise Refused(
                "BUDGET_SPENT",
                f"{left.whose} has nothing left of {left.limit_micro_usd} micro-USD for {month_of(now)}: spent, or held by turns under way",
            )
        granted = min(granted, left.micro_usd)
    keys = account.keys | {key.name: replace(key, granted_micro_usd=granted)}
    after = fitting(replace(account, keys=keys), max_bytes // 2)
    if _size(after) > max_bytes // 2:
        live = sum(1 for _ in account.live())
        raise Refused(
            "TOO_MANY_KEYS", f"{live} keys of the org {key.terms.org} are live, and no more fit: end some of its turns"
        )
    return after


def ended(account: Account, name: str, tally: Tally, now: datetime, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> Account:
    """With that key at its end, and what it was charged spent. Idempotent. Where it would be longer than `max_bytes`, of the keys that
    have ended the oldest are forgotten; what they were charged is not."""
    account = at(account, now)
    key = account.keys.get(name)
    if key is None or not key.live:
        return account
    month = month_of(now)
    spent = account.spent_micro_usd.get(month, 0) + tally.charged_micro_usd
    after = Account(
        spent_micro_usd=account.spent_micro_usd | {month: spent},
        keys=account.keys | {name: replace(key, ended_at=now, tally=tally)},
    )
    return fitting(after, max_bytes)


def fitting(account: Account, max_bytes: int) -> Account:
    """Without as many of the keys that ended first as it takes for a document of so many bytes, or without all of them."""
    over = _size(account) - max_bytes
    if over <= 0:
        return account
    keys = dict(account.keys)
    for _, key in _ends(account):
        if over <= 0:
            break
        over -= _size(keys.pop(key.name)) + len(key.name)
    return replace(account, keys=keys)


def _ends(account: Account) -> list[tuple[datetime, Key]]:
    """When which key has ended, in that order."""
    found = [(key.ended_at, key) for key in account.keys.values() if key.ended_at is not None]
    return sorted(found, key=lambda each: each[0])


def _size(document: Struct) -> int:
    return len(msgspec.json.encode(document))
