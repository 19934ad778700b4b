"""A broker under test: over any bus, with a vault in a real Postgres, and a session that asks it."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from sandreel_bridge.broker.issuer import Minted
from sandreel_bridge.broker.keyring import KeySource
from sandreel_bridge.broker.postgres import PostgresVault, open_vault
from sandreel_bridge.broker.postgres_tokens import PostgresTokens
from sandreel_bridge.broker.service import Broker, Plan
from sandreel_bridge.broker.vault import Name
from sandreel_core.client import Client
from sandreel_core.clock import now
from sandreel_core.contract import credential as c
from sandreel_core.contract import session as s
from sandreel_core.contract.lease import AskLease, Lease
from sandreel_core.contract.message import Owner
from sandreel_core.errors import Unavailable
from sandreel_core.health import Health
from sandreel_core.keys import SealingKey
from sandreel_core.metrics import Metrics
from sandreel_core.spawner.backend import Key
from tests.support.at_work import at_work
from tests.support.spawner import ONE, Hand

GITHUB = Name("acme", "github")
VALUE = b"ghp_" + os.urandom(15).hex().encode()


@dataclass
class FakeIssuer:
    """Makes tokens that are counted, and remembers which were ended. `away`: it ends none now."""

    made: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    lasts: timedelta = timedelta(hours=1)
    away: bool = False
    tries: int = 0

    async def mint(self, value: bytes, options: Mapping[str, str], resource: str | None) -> Minted:
        self.made.append(f"minted-{len(self.made)}-{resource}")
        return Minted(token=self.made[-1], expires_at=now() + self.lasts, resource=resource or "")

    async def end(self, token: str, options: Mapping[str, str]) -> None:
        self.tries += 1
        if self.away:
            raise Unavailable("the API cannot be reached (TimeoutError)")
        self.ended.append(token)


class Session(Hand):
    """A hand that also plays a session's spawner and its runnerd."""

    sealing: SealingKey

    async def begin(self, key: Key = ONE, *, incarnation: int = 1, grants: tuple[str, ...] = ()) -> None:
        """It is created, and ready in its first boot."""
        later = now() + timedelta(hours=1)
        requested = s.Requested(
            incarnation=incarnation,
            profile="default",
            owner=Owner(type="user", id="u"),
            ttl_s=3600,
            idle_timeout_s=60,
            expires_at=later,
            grants=list(grants),
        )
        await self.say(requested, key)
        await self.boot(1, key)

    async def boot(self, number: int, key: Key = ONE) -> None:
        self.sealing = SealingKey()
        boot = {"boot": number, "boot_id": f"1-{number}", "backend": "b", "ref": "r", "node": "n", "commands_after": 0}
        await self.say(s.Provisioned(**boot), key)  # type: ignore[arg-type]
        ready = s.Ready(
            boot_id=f"1-{number}", runnerd_version="0", contract_version=1, public_keys={"seal": self.sealing.public}
        )
        await self.say(ready, key)

    async def stop(self, key: Key = ONE) -> None:
        await self.say(s.Stopped(reason="asked", commands_until=0), key)

    async def resume(self, number: int, key: Key = ONE) -> None:
        later = now() + timedelta(hours=1)
        await self.say(s.Resuming(boot=number, expires_at=later, until=later), key)
        await self.boot(number, key)

    async def ask(self, slug: str | None = "github", *, key: Key = ONE, exec: str = "e1", **fields: Any) -> Lease:
        """Raises what the broker answers."""
        body = msgspec.json.encode(AskLease(**({"boot_id": "1-1", "exec": exec, "slug": slug} | fields)))
        answer = await self.bus.request(self.subjects(key).request("broker", "lease"), body, timeout_s=10)
        return msgspec.json.decode(answer, type=Lease)

    def open(self, lease: Lease) -> bytes:
        return self.sealing.open(lease.sealed)


@asynccontextmanager
async def vault_at(dsn: str, directory: Path) -> AsyncGenerator[PostgresVault, None]:
    key_file = directory / "vault.key"
    if not key_file.exists():
        key_file.write_bytes(base64.b64encode(os.urandom(32)))
    async with open_vault(dsn, KeySource(file=str(key_file))) as vault:
        yield vault


@asynccontextmanager
async def broker_on(
    bus: Any, vault: Any, issuer: Any = None, *, tokens: Any = None, health: Health | None = None, **plan: Any
) -> AsyncGenerator[Broker, None]:
    """One that serves; killed without ceremony at the end. `vault`: a `PostgresVault`, or what passes for one."""
    health = health or Health("broker", version="0", pid=1, monotonic=monotonic)
    given: dict[str, Any] = {"node": "here", "look_s": 0.05} | plan
    tokens = tokens or PostgresTokens(vault)
    broker = Broker(bus, vault, tokens, issuer or FakeIssuer(), Plan(**given), health=health, metrics=Metrics())
    async with at_work("broker", broker.run):
        yield broker


def soon(seconds: float) -> datetime:
    return now() + timedelta(seconds=seconds)


async def grant(session: Session, slug: str = "github", **fields: Any) -> None:
    await Client(session.bus, actor="ann").send("acme", "one", c.Grant(slug=slug, **fields))


async def revoke(session: Session, slug: str = "github") -> c.Revoked:
    outcome = await Client(session.bus).send("acme", "one", c.Revoke(slug=slug))
    assert isinstance(outcome.data, c.Revoked)
    return outcome.data


async def said(session: Session, kind: type[Any], **where: Any) -> Any:
    """The first event of a kind with these fields."""

    def fits(event: Any) -> bool:
        return all(getattr(event, name) == value for name, value in where.items())

    return await session.until(kind, aggregate="credential", where=fits)


async def granted(session: Session) -> list[Any]:
    return [event for event in await session.events(aggregate="credential") if isinstance(event.data, c.Granted)]


async def types(session: Session) -> list[str]:
    return [event.type.removeprefix("credential.") for event in await session.events(aggregate="credential")]
