"""An org's account as it was written before its users had documents of their own, and its sums were of one month. Pure."""

from __future__ import annotations

from collections import defaultdict

from msgspec import Struct

from sandreel_bridge.gateway.account import Account, Key
from sandreel_bridge.gateway.users import Users, part_of
from sandreel_core.contract.message import Count


class EarlierAccount(Struct, frozen=True, kw_only=True):
    """Its `spent_micro_usd` is a number where an `Account` has a table, so that neither is ever taken for the other: a gateway of that
    time does not start on what a later one has written, instead of forgetting what was spent."""

    spent_micro_usd: Count
    month: str = ""
    users_micro_usd: dict[str, Count] = {}
    keys: dict[str, Key] = {}

    @property
    def account(self) -> Account:
        return Account(spent_micro_usd={self.month: self.spent_micro_usd}, keys=self.keys)

    @property
    def users(self) -> dict[str, Users]:
        """By part. To be stored before the account is: what is written of a key after that begins with these."""
        parts: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for user, spent in self.users_micro_usd.items():
            parts[part_of(user)][user] = spent
        return {part: Users(spent_micro_usd={self.month: sums}) for part, sums in parts.items()}
