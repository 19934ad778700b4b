"""Which credential an asker gets, and by whose grant. The table of what stands may be behind the log, so whoever is refused on it
is looked at in the log once more: it may just have been granted, by another broker."""

from __future__ import annotations

from typing import NamedTuple

from sandreel_bridge.broker import lease as rules
from sandreel_bridge.broker import recipe
from sandreel_bridge.broker.standing import Key, Standing
from sandreel_bridge.broker.turns import Turns
from sandreel_bridge.broker.vault import Vault
from sandreel_bridge.broker.watch import VaultWatch
from sandreel_core.clock import now
from sandreel_core.contract.lease import AskGit
from sandreel_core.credential import Credentials
from sandreel_core.errors import Malformed, NotFound, Refused


class Chosen(NamedTuple):
    """`turn`: SESSION where the session's own grant it is."""

    slug: str
    turn: str


class Choice:
    """One for a broker."""

    def __init__(self, standing: Standing, vault: Vault, turns: Turns, watch: VaultWatch) -> None:
        self._standing = standing
        self._vault = vault
        self._turns = turns
        self._watch = watch

    async def of(self, key: Key, what: str | AskGit, exec: str) -> Chosen:
        """`what`: a credential's slug, or the place that git wants to reach. Raises Refused, NotFound (nothing that is granted
        is for that place), Unavailable."""
        try:
            chosen = await self._on(key, self._standing.get(key).credentials, what, exec)
        except (Refused, NotFound):
            chosen = await self._on(key, (await self._standing.reload(key)).credentials, what, exec)
        await self._turns.check(key, chosen.turn)
        return chosen

    async def _on(self, key: Key, credentials: Credentials, what: str | AskGit, exec: str) -> Chosen:
        if isinstance(what, str):
            return Chosen(what, rules.grant_for(credentials, what, exec, now()))
        usable: dict[str, Chosen] = {}
        for slug in sorted(credentials.held):
            try:
                usable[slug] = Chosen(slug, rules.grant_for(credentials, slug, exec, now()))
            except Refused:
                continue
        for entry in await self._watch.over(self._vault.entries(key.org, list(usable))) if usable else ():
            try:
                use = recipe.use_of(entry.recipe, entry.options, entry.name.slug)
            except Malformed:
                continue
            if use.is_for(what.protocol, what.host):
                return usable[entry.name.slug]
        raise NotFound("no granted credential is for that place")
