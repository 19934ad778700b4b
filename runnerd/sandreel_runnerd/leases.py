"""Leases for the programs of a session: asked of the broker one operation at a time, kept for some seconds, in memory.

An operation is what one process group of one exec does: git asks its helper several times for one fetch. Another exec, or
another job of a terminal, gets a lease of its own.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

import msgspec
from msgspec import Struct

from sandreel_core.bus.port import Bus
from sandreel_core.contract.lease import AskLease, Lease
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Malformed
from sandreel_core.keys import SealingKey
from sandreel_core.log import Log
from sandreel_runnerd.mask import MIN_VALUE_BYTES, Mask

# The broker answers within 9 s, or says that it could not.
ANSWER_WITHIN_S = 10.0
KEPT_S = 10.0
_MAX_KEPT = 64


class Given(Struct, frozen=True):
    """A lease with its value."""

    lease: Lease
    value: bytes

    def __repr__(self) -> str:
        """Without the value: structs end up in tracebacks."""
        return f"Given({self.lease.lease_id})"


class _Kept(Struct, frozen=True):
    given: Given
    until_s: float

    def __repr__(self) -> str:
        return f"_Kept({self.given!r})"


class Leases:
    """One for a runnerd. `sealing` is the key whose public half stands in `session.ready`; `mask` is told every value before
    anybody has it; `clock_s` is monotonic."""

    def __init__(
        self,
        bus: Bus,
        subjects: SessionSubjects,
        sealing: SealingKey,
        mask: Mask,
        log: Log,
        *,
        now: Callable[[], datetime],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._subject = subjects.request("broker", "lease")
        self._sealing = sealing
        self._mask = mask
        self._log = log
        self._now = now
        self._clock_s = clock_s
        self._kept: OrderedDict[object, _Kept] = OrderedDict()
        # Of answers that were under way when their credential was to be forgotten.
        self._forgotten: dict[str, int] = {}

    async def lease(self, ask: AskLease, group: int) -> Given:
        """`group`: the asker's process group. Raises what the broker answers (Refused, NotFound: nothing is granted for
        that place; or more than can be masked), Unserved, Unavailable, Malformed for an answer that was not sealed for this session."""
        operation = (ask.slug, ask.git, ask.resource, ask.exec, group)
        kept = self._kept.get(operation)
        if kept is not None and kept.until_s > self._clock_s():
            return kept.given
        before = dict(self._forgotten)
        answer = await self._bus.request(self._subject, msgspec.json.encode(ask), timeout_s=ANSWER_WITHIN_S)
        try:
            lease = msgspec.json.decode(answer, type=Lease)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Malformed("the broker's answer is no lease") from error
        given = Given(lease, self._sealing.open(lease.sealed))
        if not self._mask.add(given.value, passing=lease.minted):
            self._log.warning("a value is too short to be masked", slug=lease.slug, min_bytes=MIN_VALUE_BYTES)
        if self._forgotten.get(lease.slug) == before.get(lease.slug):
            self._keep(operation, given)
        return given

    def forget(self, slug: str) -> None:
        """Keep no value of this credential any longer, nor one that is on its way."""
        self._forgotten[slug] = self._forgotten.get(slug, 0) + 1
        self._kept = OrderedDict((key, kept) for key, kept in self._kept.items() if kept.given.lease.slug != slug)

    def _keep(self, operation: object, given: Given) -> None:
        left_s = (given.lease.expires_at - self._now()).total_seconds()
        now_s = self._clock_s()
        for key in [key for key, kept in self._kept.items() if kept.until_s <= now_s]:
            del self._kept[key]
        self._kept[operation] = _Kept(given, now_s + min(KEPT_S, left_s))
        if len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)
