"""Servers that are the operator's own: looked at before a role waits for them, so that a mistake is one line."""

from __future__ import annotations

from sandreel_core.bus.credentials import identity_of
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.errors import Denied, Unavailable
from sandreel_core.settings import Bus

# A server that is just being started may take as long; a role of the stack gets 30 s in all.
WITHIN_S = 20.0


async def look_at(bus: Bus) -> None:
    """That NATS answers there, and takes these credentials. Raises Unavailable, Denied, Misconfigured."""
    try:
        found = await JetStreamBus.connect(
            list(bus.nats_urls),
            name="stack",
            identity=identity_of(bus),
            connect_timeout_s=bus.connect_timeout_s or WITHIN_S,
        )
    except Unavailable as error:
        raise Unavailable(f"{error}: start it, or look at [bus] nats_urls") from error
    except Denied as error:
        raise Denied(f"{error}: look at [bus] creds_file, or user and password") from error
    await found.close()
