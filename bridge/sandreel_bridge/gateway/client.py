"""The port over NATS: how a bridge asks the built-in gateway."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

from sandreel_bridge.gateway import wire
from sandreel_bridge.gateway.port import Dialect, KeyStanding, KeyTerms, VirtualKey
from sandreel_core.bus.port import Bus
from sandreel_core.contract.requests import Request
from sandreel_core.errors import Malformed, Unavailable, Unserved
from sandreel_core.keys import SealingKey

# Asking twice changes nothing, and a gateway that is killed with a question in its hands never answers it: the next one may have the key
# within a second or two. A revocation waits for calls under way and for the log, which is longer.
_TIMEOUT_S, _REVOKED_WITHIN_S = 5.0, 20.0
T = TypeVar("T", bound=Struct)


class GatewayClient:
    """See `port.Gateway`. The key to which values are sealed is made in memory and leaves it with the process."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._seal: SealingKey | None = None

    async def enforce(self, org: str, dialect: Dialect | None = None) -> tuple[str, ...]:
        asked = wire.Enforce(dialect=dialect)
        return tuple((await self._ask(org, wire.NOBODY, "enforce", asked, wire.Enforced)).models)

    async def mint(self, name: str, terms: KeyTerms) -> VirtualKey:
        if self._seal is None:
            self._seal = SealingKey()
        asked = wire.Mint(name=name, terms=terms, seal=self._seal.public)
        minted = await self._ask(*wire.places(name), "mint", asked, wire.Minted)
        return VirtualKey(name, self._seal.open(minted.sealed).decode())

    async def standing(self, name: str) -> KeyStanding | None:
        return (await self._ask(*wire.places(name), "standing", wire.Ask(name=name), wire.Told)).standing

    async def revoke(self, name: str) -> KeyStanding | None:
        return (await self._ask(*wire.places(name), "revoke", wire.Ask(name=name), wire.Told)).standing

    async def live(self) -> list[KeyStanding]:
        found: list[KeyStanding] = []
        while True:
            asked = wire.Live(after=found[-1].name if found else "")
            page = await self._ask(wire.NOBODY, wire.NOBODY, "live", asked, wire.LiveKeys)
            found += page.keys
            if not page.more or not page.keys:
                return found

    async def _ask(self, org: str, session: str, verb: str, request: Request, reply: type[T]) -> T:
        body = msgspec.json.encode(request)
        timeout_s = _REVOKED_WITHIN_S if verb == "revoke" else _TIMEOUT_S
        try:
            said = await self._bus.request(wire.subject(org, session, verb), body, timeout_s=timeout_s)
        except Unserved:
            raise Unavailable(
                "no gateway serves: `sandreel up` starts one where a provider's key is set (ANTHROPIC_API_KEY, OPENAI_API_KEY,"
                " GEMINI_API_KEY, or [gateway] anthropic_api_key_file)"
            ) from None
        try:
            return msgspec.json.decode(said, type=reply)
        except msgspec.DecodeError as error:
            raise Malformed(f"the gateway's answer to {verb} cannot be read: {error}") from error
