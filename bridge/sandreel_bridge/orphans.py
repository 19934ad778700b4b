"""Keys that live though their turn is over, or never was: found in the gateway's own list, and revoked."""

from __future__ import annotations

from datetime import timedelta

from sandreel_bridge.gateway.port import Gateway, KeyStanding
from sandreel_bridge.index import Index
from sandreel_bridge.journal import Journal, Name
from sandreel_core.bus.port import Bus
from sandreel_core.clock import now
from sandreel_core.errors import SandreelError
from sandreel_core.log import Log

# A key is made after the intent and before anything else; its turn is not yet where the scan looks for so long at most.
YOUNG_S = 120.0


async def revoke_orphans(
    bus: Bus, gateway: Gateway, index: Index, *, partitions: int, source: str, young_s: float = YOUNG_S
) -> int:
    """How many were revoked. One that cannot be is no reason to spare the others. Raises Unavailable."""
    revoked, log = 0, Log("bridge.orphans")
    # The keys first: a turn that is asked for in between is not among them.
    for key in await gateway.live():
        if now() - key.created_at < timedelta(seconds=young_s):
            continue
        where = {"org": key.org, "session": key.session, "turn": key.turn}
        try:
            if await _is_needed(bus, index, key, partitions, source):
                continue
            log.warning("a key without a turn is revoked", **where)
            await gateway.revoke(key.name)
        except SandreelError as error:
            log.warning("a key without a turn has to wait", problem=str(error), **where)
        else:
            revoked += 1
    return revoked


async def _is_needed(bus: Bus, index: Index, key: KeyStanding, partitions: int, source: str) -> bool:
    """A turn that is not settled ends its keys itself. Of one that is, by the index, the log is asked as well."""
    name = Name(key.org, key.session, key.turn)
    if await index.is_open(name):
        return True
    journal = Journal(bus, name, partitions, source=source)
    await journal.catch_up()
    return journal.turn.phase in ("requested", "running")
