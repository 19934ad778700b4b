"""Where the bridge is answered: one service on `req.gateway.*.*.*`."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from msgspec import Struct

from sandreel_bridge.gateway import wire
from sandreel_bridge.gateway.keyring import PREFIX, Keyring
from sandreel_bridge.gateway.orgs import Orgs
from sandreel_bridge.gateway.port import Dialect
from sandreel_bridge.gateway.recorder import Recorder
from sandreel_core.contract.requests import Reply
from sandreel_core.errors import Malformed
from sandreel_core.ids import check_org
from sandreel_core.keys import seal
from sandreel_core.log import Log

SUBJECT = "req.gateway.*.*.*"
# A key's calls under way when it is revoked: an agent's program was ended before, and its connections with it.
QUIET_S = 5.0
_PAGE = 1000
T = TypeVar("T", bound=Struct)


class Desk:
    """`handle` is a bus handler: what it raises, the asker gets. `works` raises what keeps the gateway from metering."""

    def __init__(self, keyring: Keyring, orgs: Orgs, recorder: Recorder, works: Callable[[], Awaitable[None]]) -> None:
        self._keyring = keyring
        self._orgs = orgs
        self._recorder = recorder
        self._works = works
        self._log = Log("gateway")

    async def handle(self, subject: str, body: bytes) -> bytes:
        tokens = subject.split(".")
        org, verb = tokens[2], tokens[4]
        match verb:
            case "enforce":
                dialect = _read(body, wire.Enforce).dialect
                reply: Reply = wire.Enforced(models=list(await self._enforce(check_org(org), dialect)))
            case "mint":
                reply = await self._mint(_read(body, wire.Mint), org, tokens[3])
            case "standing":
                asked = _read(body, wire.Ask)
                reply = wire.Told(standing=self._keyring.standing(_own(asked.name, org), asked.name))
            case "revoke":
                asked = _read(body, wire.Ask)
                reply = wire.Told(standing=await self._keyring.end(_own(asked.name, org), asked.name, within_s=QUIET_S))
                self._log.info("key revoked", key=asked.name)
            case "live":
                reply = self._live(_read(body, wire.Live).after)
            case _:
                raise Malformed(f"{verb[:80]!r} is nothing that a gateway is asked")
        return msgspec.json.encode(reply)

    async def _enforce(self, org: str, dialect: Dialect | None) -> tuple[str, ...]:
        self._recorder.check()
        models = self._orgs.models(org, dialect)
        await self._works()
        return models

    async def _mint(self, asked: wire.Mint, org: str, session: str) -> wire.Minted:
        if wire.places(asked.name) != (org, session) or (asked.terms.org, asked.terms.session) != (org, session):
            raise Malformed(f"the key {asked.name[:200]} is not of {org}/{session}, where it was asked for")
        value = PREFIX + urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
        sealed = seal(asked.seal, value.encode())  # before anything is written: a key that is none is Malformed
        standing = await self._keyring.mint(asked.name, asked.terms, value)
        self._log.info("key minted", key=asked.name, granted_micro_usd=standing.budget_micro_usd)
        return wire.Minted(sealed=sealed)

    def _live(self, after: str) -> wire.LiveKeys:
        found = sorted((key for key in self._keyring.live() if key.name > after), key=lambda key: key.name)
        return wire.LiveKeys(keys=found[:_PAGE], more=len(found) > _PAGE)


def _own(name: str, org: str) -> str:
    if wire.places(name)[0] != org:
        raise Malformed(f"the key {name[:200]} is not of {org}, where it was asked for")
    return org


def _read(body: bytes, type: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type)
    except msgspec.DecodeError as error:
        raise Malformed(f"the request is not in order: {error}") from None
