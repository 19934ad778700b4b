"""What each kind of process needs on a NATS that is not in operator mode (`permissions` is the table of one that is). Pure data.

All runnerds share one user then, and organisations are not kept apart: for a server of one's own that knows passwords.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class NatsUser:
    """What a user may publish and subscribe to. `responds` lets it answer whoever asks it."""

    name: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    responds: bool = False

    def config(self, password: str) -> dict[str, Any]:
        """The server's own form."""
        permissions: dict[str, Any] = {"publish": list(self.publish), "subscribe": list(self.subscribe)}
        if self.responds:
            permissions["allow_responses"] = {"max": 1, "expires": "10m"}
        return {"user": self.name, "password": password, "permissions": permissions}


# Spawner, projector, broker, bridge: they make the streams and decide.
ROLE = NatsUser("role", publish=(">",), subscribe=(">",))

# It writes its execs, its workspace and its outcomes, and pulls from a feed that the spawner made for it.
RUNNERD = NatsUser(
    "runnerd",
    publish=(
        *("evt.*.*.*.exec.*", "evt.*.*.*.workspace", "evt.*.*.*.command", "hb.*.*"),
        *("req.spawner.*.*.*", "req.broker.*.*.*", "req.bridge.*.*.*", "$JS.API.CONSUMER.MSG.NEXT.CMD.*"),
    ),
    subscribe=("_INBOX.>", "req.runnerd.*.*.*"),
    responds=True,
)

# Platform services and people: commands and requests go in, everything may be read.
CLIENT = NatsUser(
    "client",
    publish=(
        *("cmd.*.*.*.*", "req.*.*.*.*", "$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*"),
        *("$JS.API.DIRECT.GET.>", "$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.INFO.*.*"),
        *("$JS.API.CONSUMER.MSG.NEXT.*.*", "$JS.API.CONSUMER.DELETE.*.*"),
    ),
    subscribe=("_INBOX.>", "hb.*.*"),
)

# `sandreel backup create`: it copies whole streams, and can neither write nor delete nor bring back anything. Bringing
# back (STREAM.RESTORE, after STREAM.DELETE) is in the roles' name alone.
BACKUP = NatsUser(
    "backup",
    publish=(
        *("$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.SNAPSHOT.*"),
        "$JS.SNAPSHOT.ACK.>",
    ),
    subscribe=("_INBOX.>",),
)

USERS: tuple[NatsUser, ...] = (ROLE, RUNNERD, CLIENT, BACKUP)
