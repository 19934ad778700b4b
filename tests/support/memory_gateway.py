"""A gateway in memory: keeps every promise of the port, counts what it is told, and fails when a test says so."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta

from msgspec.structs import replace

from sandreel_bridge.gateway.port import Dialect, KeyStanding, KeyTerms, VirtualKey
from sandreel_core.clock import now
from sandreel_core.contract.turn import Usage
from sandreel_core.errors import SandreelError, Unavailable

PER_CALL = Usage(input_tokens=100, output_tokens=10, cost_micro_usd=450)


@dataclass
class MemoryGateway:
    """`models` of every org. `trouble`: what every call raises from now on. `stuck`: keys that cannot be revoked. `charges`: what
    a key of that attempt has been charged when it ends. `minted` and `revoked`: key names, in order; `terms` by name."""

    models: tuple[str, ...] = ("fake-model", "other-model")
    trouble: SandreelError | None = None
    keys: dict[str, KeyStanding] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    minted: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    stuck: set[str] = field(default_factory=set)
    charges: dict[str, int] = field(default_factory=dict)
    terms: dict[str, KeyTerms] = field(default_factory=dict)

    async def enforce(self, org: str, dialect: Dialect | None = None) -> tuple[str, ...]:
        self._check()
        return self.models

    async def mint(self, name: str, terms: KeyTerms) -> VirtualKey:
        self._check()
        before = self.keys.get(name)
        self.keys[name] = KeyStanding(
            name=name,
            org=terms.org,
            session=terms.session,
            turn=terms.turn,
            created_at=now(),
            live=True,
            calls=before.calls if before else 0,
            usage=before.usage if before else Usage(cost_micro_usd=0),
        )
        self.values[name] = f"vk-{os.urandom(12).hex()}"
        self.minted.append(name)
        self.terms[name] = terms
        return VirtualKey(name, self.values[name])

    async def standing(self, name: str) -> KeyStanding | None:
        self._check()
        return self.keys.get(name)

    async def revoke(self, name: str) -> KeyStanding | None:
        self._check()
        if name in self.stuck:
            raise Unavailable("this key's calls do not end")
        self.revoked.append(name)
        found = self.keys.get(name)
        if found is not None:
            charged = self.charges.get(name, 0)
            self.keys[name] = found = replace(found, live=False, charged_micro_usd=charged)
        return found

    async def live(self) -> list[KeyStanding]:
        self._check()
        return [key for key in self.keys.values() if key.live]

    def age(self, seconds: float) -> list[str]:
        """Every live key was made so long ago; their names."""
        live = [name for name, key in self.keys.items() if key.live]
        for name in live:
            self.keys[name] = replace(self.keys[name], created_at=now() - timedelta(seconds=seconds))
        return live

    def plant(self, name: str, org: str, session: str, turn: str, age_s: float) -> None:
        """A live key that nobody asked for."""
        at = now() - timedelta(seconds=age_s)
        self.keys[name] = KeyStanding(name=name, org=org, session=session, turn=turn, created_at=at, live=True)

    def _check(self) -> None:
        if self.trouble is not None:
            raise self.trouble
