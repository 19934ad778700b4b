"""The broker: answers commands and sessions, and says by itself what time and the end of things make due."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import msgspec

from sandreel_bridge.broker.commands import commands
from sandreel_bridge.broker.desk import GIVE_S, Desk
from sandreel_bridge.broker.due import OVER, due
from sandreel_bridge.broker.issuer import Issuer
from sandreel_bridge.broker.journal import Journal
from sandreel_bridge.broker.lease import LEASE_S
from sandreel_bridge.broker.measures import BrokerMeasures
from sandreel_bridge.broker.minting import AGAIN_S, ORPHAN_S, Minting
from sandreel_bridge.broker.standing import Key, Stand, Standing
from sandreel_bridge.broker.tokens import Place, Tokens
from sandreel_bridge.broker.turns import Turns
from sandreel_bridge.broker.vault import Vault
from sandreel_core.bus import installed
from sandreel_core.bus.measures import CommandMeasures
from sandreel_core.bus.port import Bus
from sandreel_core.bus.streams import CMD_MAX_AGE_S
from sandreel_core.clock import now
from sandreel_core.contract.credential import Revoked
from sandreel_core.contract.lease import Forget
from sandreel_core.contract.message import Envelope
from sandreel_core.errors import SandreelError
from sandreel_core.health import Health
from sandreel_core.log import Log
from sandreel_core.metrics import Metrics

# Every session that holds something is looked at so often: the end of a turn, and what a broker that died has left.
LOOK_S = 2.0
MAX_AT_ONCE = 32
# Of one session at one look; more is left to the next one.
_MAX_EVENTS = 1000
_FORGET_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What an operator has decided. `node` names this broker in what it writes."""

    node: str
    partitions: int = 1
    lease_s: float = LEASE_S
    give_s: float = GIVE_S
    command_max_age_s: float = CMD_MAX_AGE_S
    look_s: float = LOOK_S
    token_again_s: float = AGAIN_S
    token_orphan_s: float = ORPHAN_S


class Broker:
    """Any number may run: what two of them would say twice, the log takes once."""

    def __init__(
        self, bus: Bus, vault: Vault, tokens: Tokens, issuer: Issuer, plan: Plan, *, health: Health, metrics: Metrics
    ) -> None:
        self._bus = bus
        self._plan = plan
        self._log = Log("broker")
        self._standing = Standing(bus, plan.partitions, heard=self._hear)
        self._measures = BrokerMeasures(metrics, lambda: len(self._standing.holding()))
        source = f"/broker/{plan.node}"
        self._reactor = commands(
            bus,
            self._standing,
            vault,
            source=source,
            command_max_age_s=plan.command_max_age_s,
            measures=CommandMeasures(metrics),
        )
        self._journal = Journal(bus, self._standing, source=source, appended=self._reactor.learn)
        self._minting = Minting(
            issuer,
            tokens,
            is_held=self._is_held,
            say=lambda place, event: self._journal.decide(Key(place.name.org, place.session), lambda _: event),
            by=source,
            health=health,
            measures=self._measures,
            look_s=plan.look_s,
            again_s=plan.token_again_s,
            orphan_s=plan.token_orphan_s,
        )
        self._turns = Turns(bus, self._standing)
        self._desk = Desk(
            bus,
            self._standing,
            self._journal,
            vault,
            self._minting,
            self._turns,
            source=source,
            lease_s=plan.lease_s,
            give_s=plan.give_s,
            measures=self._measures,
            health=health,
        )
        self._ended: asyncio.Queue[tuple[Key, Revoked]] = asyncio.Queue()
        self._room = asyncio.Semaphore(MAX_AT_ONCE)

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve for ever; `ready` is called when the log was read and everything that was due is said."""
        await installed.check(self._bus, "broker")
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            group.create_task(installed.watch(self._bus, "broker"), name="installed")
            group.create_task(self._standing.run(), name="standing")
            await self._standing.caught_up()
            await self._look()
            group.create_task(self._reactor.run(), name="commands")
            group.create_task(self._settle_changes(), name="changes")
            group.create_task(self._look_again(), name="look")
            group.create_task(self._end(group), name="ends")
            self._minting.begin(group)
            await self._desk.open(stack)
            ready()
            await asyncio.get_running_loop().create_future()

    # -- what is due

    async def _settle_changes(self) -> None:
        """At once, whenever a session or its credentials change."""
        while True:
            await self._settle_all(await self._standing.changed())

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(self._plan.look_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            await self._look()

    async def _look(self) -> None:
        await self._settle_all(set(self._standing.holding()), turns=True)

    async def _settle_all(self, keys: set[Key], *, turns: bool = False) -> None:
        async def one(key: Key) -> None:
            async with self._room:
                try:
                    await self._settle(key, turns=turns)
                except SandreelError as error:
                    self._log.warning("a session's credentials have to wait", session=str(key), problem=str(error))

        await asyncio.gather(*(one(key) for key in keys))

    async def _settle(self, key: Key, *, turns: bool) -> None:
        """Say everything that is due about one session."""
        stand = self._standing.get(key)
        if stand.session.phase in OVER and not stand.credentials.held:
            return
        finished = await self._turns.finished(key) if turns else set[str]()
        session = stand.session
        if session.phase in OVER:
            # What it holds may be newer than what the table shows of it: a session that has just been resumed.
            session = await self._standing.session(key)
        for _ in range(_MAX_EVENTS):
            said = await self._journal.decide(key, lambda stand: due(session, stand.credentials, now(), finished))
            if said is None:
                return
            self._log.info(
                said.type,
                session=str(key),
                slug=said.slug,
                why=said.reason if isinstance(said, Revoked) else "born with",
            )

    # -- what an end means outside the log

    def _hear(self, key: Key, event: Envelope) -> None:
        if isinstance(event.data, Revoked):
            self._measures.revoked(event.data.reason)
            self._ended.put_nowait((key, event.data))

    async def _end(self, group: asyncio.TaskGroup) -> None:
        while True:
            key, event = await self._ended.get()
            if event.lease_ids:
                await self._room.acquire()
                group.create_task(self._end_tokens(event.lease_ids), name="end of tokens")
            if event.ends != "none" and event.reason not in ("stopped", "destroyed"):
                await self._room.acquire()
                group.create_task(self._forget(key, event.slug), name="forget")

    async def _end_tokens(self, leases: list[str]) -> None:
        try:
            await self._minting.end(leases)
        finally:
            self._room.release()

    async def _is_held(self, place: Place) -> bool:
        """Whether the lease is in the log, and nothing that ended it. Raises Unavailable."""
        key = Key(place.name.org, place.session)

        def holds(stand: Stand) -> bool:
            return place.lease in stand.credentials.of(place.name.slug).leases

        # The table may be behind: what would be ended for good is looked up.
        return holds(self._standing.get(key)) or holds(await self._standing.reload(key))

    async def _forget(self, key: Key, slug: str) -> None:
        """Have the session's runnerd drop what it keeps for some seconds. One that does not hear it drops it by itself."""
        subject = self._standing.subjects(key).request("runnerd", "forget")
        try:
            await self._bus.request(subject, msgspec.json.encode(Forget(slug=slug)), timeout_s=_FORGET_WITHIN_S)
        except SandreelError as error:
            self._log.info("a session was not told to forget", session=str(key), slug=slug, problem=str(error))
        finally:
            self._room.release()
