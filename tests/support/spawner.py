"""A spawner under test: over any bus and backend, with a hand that sends commands and plays runnerd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from sandreel_core.bus.port import Bus, CaughtUp, Missing
from sandreel_core.clock import new_id, now
from sandreel_core.contract.bootstrap import Bootstrap, Bootstrapped
from sandreel_core.contract.codec import decode_event, encode, seal
from sandreel_core.contract.message import Command, Envelope, Event, Owner
from sandreel_core.contract.runnerd import Heartbeat
from sandreel_core.contract.session import CommandRefused, Create, Requested
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.spawner.backend import Backend, Key
from sandreel_core.spawner.boot_terms import BootTerms
from sandreel_core.spawner.bootstrap import token_of
from sandreel_core.spawner.reconcile import Rules
from sandreel_core.spawner.service import Plan, Spawner
from tests.support.at_work import at_work

KEY_BYTES = b"k" * 32
ONE, TWO = Key("acme", "one"), Key("acme", "two")
E = TypeVar("E", bound=Event)


def plan(**changes: Any) -> Plan:
    terms = BootTerms(installation="ours", key=KEY_BYTES, partitions=1, nats_urls=("nats://127.0.0.1:1",))
    given: dict[str, Any] = {"terms": terms, "rules": Rules(installation="ours", node="here")}
    return replace(Plan(**given), **changes)


@asynccontextmanager
async def running(bus: Bus, backend: Backend, plan: Plan, **told: Any) -> AsyncGenerator[Spawner, None]:
    """A spawner that has done its first sweep; killed without ceremony at the end."""
    spawner = Spawner(bus, backend, plan, **told)
    async with at_work("spawner", spawner.run):
        yield spawner


@dataclass
class Hand:
    """Sends what platform services send, and says what a runnerd would say."""

    bus: Bus
    timeout_s: float = 10

    def subjects(self, key: Key = ONE) -> SessionSubjects:
        return SessionSubjects(key.org, key.session)

    async def send(self, command: Command, key: Key = ONE, *, id: str | None = None, **attributes: Any) -> str:
        id = id or new_id()
        subject = self.subjects(key).command(command.role, id)
        envelope = seal(command, id=id, source="/test", subject=subject, time=now(), **attributes)
        await self.bus.append(subject, encode(envelope))
        return id

    async def create(self, key: Key = ONE, **fields: Any) -> str:
        fields.setdefault("owner", Owner(type="user", id=key.session))
        return await self.send(Create(**fields), key, actor="ann")

    async def events(self, key: Key = ONE, aggregate: str = "session", id: str = "") -> list[Envelope]:
        subject = self.subjects(key).event(aggregate, id)
        found: list[Envelope] = []
        async with aclosing(self.bus.follow(self.subjects(key).stream, [subject], live=False)) as items:
            async for item in items:
                if not isinstance(item, CaughtUp | Missing):
                    found += [decode_event(stored.subject, stored.body) for stored in item]
        return found

    async def types(self, key: Key = ONE) -> list[str]:
        return [event.type.removeprefix("session.") for event in await self.events(key)]

    async def until(
        self, kind: type[E], key: Key = ONE, *, aggregate: str = "session", id: str = "", cause: str | None = None, where: Callable[[E], bool] = lambda _: True
    ) -> E:  # fmt: skip
        """The first event of a kind (that names this cause)."""
        subject = self.subjects(key).event(aggregate, id)
        async with asyncio.timeout(self.timeout_s):
            async with aclosing(self.bus.follow(self.subjects(key).stream, [subject])) as items:
                async for item in items:
                    if isinstance(item, CaughtUp | Missing):
                        continue
                    for stored in item:
                        event = decode_event(stored.subject, stored.body)
                        named = cause is None or event.causationid == cause
                        if isinstance(event.data, kind) and named and where(event.data):
                            return event.data
        raise AssertionError("the stream ended")

    async def refusal(self, cause: str, key: Key = ONE) -> str:
        """The code with which a command was refused."""
        return (await self.until(CommandRefused, key, cause=cause)).code

    async def bootstrap(self, boot_id: str = "1-1", key: Key = ONE, **changes: Any) -> Bootstrapped:
        asked: dict[str, Any] = {"boot_id": boot_id, "token": token_of(KEY_BYTES, key, boot_id)}
        asked |= {"runnerd_version": "0", "contract_version": 1, "public_keys": {"sign": "first"}}
        body = msgspec.json.encode(Bootstrap(**(asked | changes)))
        answer = await self.bus.request(self.subjects(key).request("spawner", "bootstrap"), body, timeout_s=8)
        return msgspec.json.decode(answer, type=Bootstrapped)

    async def beat(self, boot_id: str = "1-1", key: Key = ONE, **fields: Any) -> None:
        given: dict[str, Any] = {"boot_id": boot_id, "live_execs": 0, "idle_s": 0.0} | fields
        await self.bus.publish(self.subjects(key).heartbeat(), msgspec.json.encode(Heartbeat(**given)))

    async def say(
        self, event: Event, key: Key = ONE, *, id: str = "", n: int | None = None, cause: str | None = None
    ) -> int:
        """Append an event as runnerd would."""
        subject = self.subjects(key).event(event.aggregate, id)
        attributes: dict[str, Any] = {} if cause is None else {"causationid": cause}
        sealed = seal(event, id=new_id(), source="/runnerd", subject=subject, time=now(), n=n, **attributes)
        return await self.bus.append(subject, encode(sealed))


async def ready(hand: Hand, key: Key = ONE, boot_id: str = "1-1", **fields: object) -> Bootstrapped:
    await hand.create(key, **fields)
    return await up(hand, key, boot_id)


async def up(hand: Hand, key: Key = ONE, boot_id: str = "1-1") -> Bootstrapped:
    """runnerd, once it has been started."""
    incarnation = boot_id.partition("-")[0]
    await hand.until(Requested, key, where=lambda event: str(event.incarnation) == incarnation)
    return await hand.bootstrap(boot_id, key)
