"""Tokens that are made for one lease, and ended with it: also those of a broker that died, and when their issuer is away.

    made by the issuer → kept, sealed (`tokens.py`) → `credential.leased` → handed out
    `credential.revoked` names the lease, or the log has no such lease → ended by the issuer, tried again → forgotten

One that dies between the first two leaves a token that works and whose bytes nobody has.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress

from sandreel_bridge.broker.issuer import Issuer, Minted
from sandreel_bridge.broker.measures import BrokerMeasures
from sandreel_bridge.broker.tokens import Kept, Place, Tokens
from sandreel_bridge.broker.vault import Opened
from sandreel_core.contract.credential import Outlived
from sandreel_core.errors import SandreelError
from sandreel_core.health import Health
from sandreel_core.log import Log

# A broker has decided by then whether its lease is in the log (`desk.GIVE_S`, with room): a token without one is nobody's.
ORPHAN_S = 20.0
# After a first try; then twice that, up to a minute, until the token ends by itself, within the hour. Longer than an issuer is
# waited for, so that two brokers hardly ever try at once.
AGAIN_S = 8.0
# So many tries in vain (24 s) are said in the log, and in the role's health.
SAID_AFTER = 3
_AT_ONCE = 32
# Tokens that are remembered for when their database is away; beyond so many the oldest is left to what is kept of it.
_REMEMBERED = 10_000
_OUTLIVED = (
    "tokens of ended leases still work, because their issuer does not end them: they end by themselves within the hour"
)


class Minting:
    """One for a broker. `is_held`: whether the log has the lease, and nothing that ended it (raises Unavailable); `say`: append
    an event about that place (raises SandreelError). `by` names this broker to the vault's audit."""

    def __init__(
        self,
        issuer: Issuer,
        tokens: Tokens,
        *,
        is_held: Callable[[Place], Awaitable[bool]],
        say: Callable[[Place, Outlived], Awaitable[object]],
        by: str,
        health: Health,
        measures: BrokerMeasures,
        look_s: float,
        again_s: float = AGAIN_S,
        orphan_s: float = ORPHAN_S,
    ) -> None:
        self._issuer = issuer
        self._tokens = tokens
        self._is_held = is_held
        self._say = say
        self._by = by
        self._health = health
        self._measures = measures
        self._look_s = look_s
        self._again_s = again_s
        self._orphan_s = orphan_s
        self._out: OrderedDict[str, Kept] = OrderedDict()
        self._due = asyncio.Event()
        self._waits = False
        self._log = Log("broker.minting")

    def begin(self, group: asyncio.TaskGroup) -> None:
        """From now on tokens are made and ended, by tasks of the group."""
        self._group = group
        group.create_task(self._run(), name="minting")

    async def mint(self, place: Place, opened: Opened, resource: str | None) -> Minted:
        """Made, and kept. Raises as the issuer's `mint`. Whoever stops waiting for it has it made and ended all the same."""
        answer: asyncio.Future[Minted] = asyncio.get_running_loop().create_future()
        self._group.create_task(self._make(answer, place, opened, resource), name="mint")
        return await answer

    async def end(self, leases: Collection[str]) -> None:
        """These are over: end what tokens they have, soon. Never raises."""
        mine = [self._out.pop(lease) for lease in leases if lease in self._out]
        try:
            if await self._tokens.end(leases):
                self._due.set()
        except SandreelError:
            # What is kept is found again when its database is; what can be ended without it is ended now.
            for kept in mine:
                if problem := await self._try(kept):
                    self._log.warning("a token was not ended", lease=kept.place.lease, problem=problem)

    # -- tasks

    async def _make(self, answer: asyncio.Future[Minted], place: Place, opened: Opened, resource: str | None) -> None:
        try:
            minted = await self._issuer.mint(opened.value, opened.entry.options, resource)
            kept = Kept(place=place, expires_at=minted.expires_at, options=opened.entry.options, token=minted.token)
            await self._keep(kept)
        except SandreelError as error:
            if not answer.done():
                answer.set_exception(error)
            return
        if answer.done():
            await self.end([place.lease])
        else:
            answer.set_result(minted)

    async def _keep(self, kept: Kept) -> None:
        try:
            await self._tokens.keep(kept)
        except SandreelError:
            # It may be kept all the same: then it is found to be nobody's, and ended twice.
            if problem := await self._try(kept):
                self._log.warning("a token that nobody got was not ended", until=str(kept.expires_at), problem=problem)
            raise
        self._out[kept.place.lease] = kept
        if len(self._out) > _REMEMBERED:
            self._out.popitem(last=False)

    async def _run(self) -> None:
        while True:
            more = False
            try:
                more = await self._look()
                self._waits = False
            except SandreelError as error:
                if not self._waits:  # once for as long as it is so
                    self._log.warning("minted tokens have to wait", problem=str(error))
                self._waits = True
            if not more:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._look_s * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
                        await self._due.wait()
            self._due.clear()

    async def _look(self) -> bool:
        """Everything that is due; whether there is more."""
        claimed = await self._tokens.claim(_AT_ONCE, self._again_s, by=self._by)
        await asyncio.gather(*(self._end(kept) for kept in claimed))
        for kept in await self._tokens.expired(by=self._by):
            self._measures.token("outlived")
            self._log.error("a token was never ended by its issuer", lease=kept.place.lease, tries=kept.tries)
        late = await self._tokens.late(SAID_AFTER)
        if late.count:
            self._health.trouble("tokens", _OUTLIVED, fails_after_s=None)
        else:
            self._health.well("tokens")
        # Last, since it asks the log, which may be away when the issuer is not.
        return bool(await self._find_nobodys()) or len(claimed) == _AT_ONCE

    async def _find_nobodys(self) -> int:
        """Those of which the log has no lease (any more): its broker died, or did not hear how it ended."""
        nobodys = [
            place.lease for place in await self._tokens.unclaimed(self._orphan_s) if not await self._is_held(place)
        ]
        if nobodys:
            self._log.info("tokens of no lease are ended", count=len(nobodys))
            await self._tokens.end(nobodys)
        return len(nobodys)

    async def _end(self, kept: Kept) -> None:
        try:
            problem = await self._try(kept)
            if problem is None:
                await self._tokens.ended(kept, by=self._by)
                self._measures.token("ended")
                return
            place = kept.place
            self._log.warning(
                "a token was not ended",
                lease=place.lease,
                tries=kept.tries,
                until=str(kept.expires_at),
                problem=problem,
            )
            if kept.tries >= SAID_AFTER and not kept.said:
                await self._say(place, Outlived(slug=place.name.slug, lease_id=place.lease, expires_at=kept.expires_at))
                await self._tokens.said(place.lease)
        except SandreelError as error:
            self._log.info("a minted token has to wait", lease=kept.place.lease, problem=str(error))

    async def _try(self, kept: Kept) -> str | None:
        """Why it was not ended; None when it was."""
        if kept.token is None:
            return "what is kept of it cannot be opened"
        try:
            await self._issuer.end(kept.token, kept.options)
        except SandreelError as error:
            return str(error)
        return None
