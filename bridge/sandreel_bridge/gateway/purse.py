"""A live key's budget, with what its calls under way hold of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from sandreel_bridge.gateway.account import Key, Tally
from sandreel_core.contract.message import Count
from sandreel_core.contract.usage import UsageRecorded
from sandreel_core.errors import Refused, Unavailable

BUDGET_SPENT = "BUDGET_SPENT"


class OpenCall(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call under way: all that must be known to charge it when nobody can tell any more how it ended."""

    call_id: str
    provider: str
    model: str
    held_micro_usd: Count


class Progress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is written down of a live key as its calls begin and end.

    since   when the key was made, which tells it from one that had its name before; None in what earlier versions have written
    step    how many calls have begun and ended until then: of two, the one with more steps is the later one
    """

    name: str
    tally: Tally
    calls: list[OpenCall] = []
    since: datetime | None = None
    step: Count = 0


class KeyOver(Refused):
    """The key that a call was to be paid by has ended, or was replaced, since it was shown."""

    def __init__(self) -> None:
        super().__init__("KEY_OVER", "the key has ended, or was replaced")


class Purse:
    """`key` may be replaced (`become`) by one of the same name, which goes on with what this one has used."""

    def __init__(self, key: Key, tally: Tally) -> None:
        self.key = key
        self.tally = tally
        self.step = 0
        self._over = False
        self.calls: dict[str, OpenCall] = {}
        self._cuts: dict[str, Callable[[], object]] = {}
        self._changed = asyncio.Event()

    @property
    def left_micro_usd(self) -> int:
        """Not counting what is held."""
        return self.key.granted_micro_usd - self.tally.charged_micro_usd

    @property
    def progress(self) -> Progress:
        return Progress(
            name=self.key.name,
            tally=self.tally,
            calls=list(self.calls.values()),
            since=self.key.created_at,
            step=self.step,
        )

    def expired(self, now: datetime) -> bool:
        return now >= self.key.terms.expires_at

    def become(self, key: Key) -> None:
        """Calls that were to be paid by the key before, and have not begun, are refused from now on."""
        self.key = key
        self._over = False
        self._changed.set()

    def close(self) -> None:
        """Let no call begin any more, nor one that waits."""
        self._over = True
        self._changed.set()

    async def hold(self, key: Key, call: OpenCall, *, wait_s: float, cut: Callable[[], object] = lambda: None) -> None:
        """Take a call's estimate (`held_micro_usd`) out of the budget, or all that is left where that is less: so at
        most one call goes beyond the budget, by no more than its own cost. `cut` ends it.

        Where others hold what this one needs, it waits for them. Raises Refused (BUDGET_SPENT) when it is spent, KeyOver
        when `key`, which the call has shown, is not live any more, Unavailable when others still hold it after `wait_s`.
        """
        try:
            async with asyncio.timeout(wait_s):
                while not self._try(key, call):
                    self._changed.clear()
                    await self._changed.wait()
                self._cuts[call.call_id] = cut
        except TimeoutError:
            raise Unavailable("calls under way hold what is left of the turn's budget", retry_after_s=5) from None

    def check(self, key: Key) -> None:
        """Raises KeyOver when `key` is not live any more."""
        if self._over or self.key is not key:
            raise KeyOver

    def _try(self, key: Key, call: OpenCall) -> bool:
        self.check(key)
        left = self.left_micro_usd
        if left <= 0:
            raise Refused(BUDGET_SPENT, f"the turn's budget of {self.key.granted_micro_usd} micro-USD is spent")
        wanted = min(max(1, call.held_micro_usd), left)
        if wanted > left - sum(each.held_micro_usd for each in self.calls.values()):
            return False
        self.take(replace(call, held_micro_usd=wanted))
        return True

    def take(self, call: OpenCall) -> None:
        """The call has begun, and holds what it says."""
        self.calls[call.call_id] = call
        self.step += 1

    def settle(self, call_id: str, event: UsageRecorded | None) -> None:
        """The call has ended, and this is what it used; None: it was none."""
        self.calls.pop(call_id, None)
        self._cuts.pop(call_id, None)
        self.step += 1
        if event is not None:
            self.tally = self.tally.plus(event)
        self._changed.set()

    def cut(self) -> None:
        """End what is under way. Each call settles itself."""
        for cut in list(self._cuts.values()):
            cut()

    async def quiet(self, within_s: float) -> bool:
        """Wait until no call is under way; False when one still is."""
        try:
            async with asyncio.timeout(within_s):
                while self.calls:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True
