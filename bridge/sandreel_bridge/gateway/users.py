"""What an org's users have spent, in parts: each is a document of its own, so that any number of users fits. Pure.

A key's charge stands in two documents, its user's part and the org's account, which cannot be written at once. So the part is written
first, and says of which keys it has what (`charged`) until the account has them as ended: written again after a crash, a charge counts
once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from datetime import datetime

from msgspec import Struct

from sandreel_bridge.gateway.account import Key
from sandreel_bridge.gateway.months import counting, kept, month_of
from sandreel_core.contract.message import Count


def part_of(user: str) -> str:
    """One of 256, by name. Some 16,000 users' sums fit into a document of 1 MiB."""
    return hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()[:2]


class Charge(Struct, frozen=True, kw_only=True):
    """What the sums have of a key that was made at `since`: the same name may be given again."""

    since: datetime
    micro_usd: Count


class Users(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One part. `spent_micro_usd`: by month and user."""

    spent_micro_usd: Mapping[str, Mapping[str, Count]] = {}
    charged: Mapping[str, Charge] = {}

    def spent(self, user: str, now: datetime) -> int:
        """What counts in the month of `now`."""
        return sum(users.get(user, 0) for users in counting(self.spent_micro_usd, now))

    def plus(self, user: str, key: Key, charged_micro_usd: int, now: datetime, live: Container[str]) -> Users:
        """With what the key was charged in all, and of other keys what was counted as long as they are among the `live`. Idempotent."""
        before = self.charged.get(key.name)
        counted = before.micro_usd if before is not None and before.since == key.created_at else 0
        more = charged_micro_usd - counted
        if more <= 0:
            return self
        month = month_of(now)
        present = self.spent_micro_usd.get(month, {})
        months = {**self.spent_micro_usd, month: {**present, user: present.get(user, 0) + more}}
        others = {name: each for name, each in self.charged.items() if name in live}
        return Users(
            spent_micro_usd=kept(months, now),
            charged=others | {key.name: Charge(since=key.created_at, micro_usd=charged_micro_usd)},
        )
