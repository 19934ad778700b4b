"""A runnerd of the release before: `old_runnerd.py VERSION --settings-stdin`. It says that it speaks the contract VERSION, and
lacks what is newer in the types and requests of now: optional fields, a command, a verb.
"""

from __future__ import annotations

# ruff: noqa: E402 - what is taken away has to be so before runnerd is imported
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from sandreel_core.contract import bootstrap, catalog
from sandreel_core.contract.message import Count
from sandreel_core.contract.requests import Reply
from sandreel_core.contract.runnerd import Heartbeat
from sandreel_core.contract.session import Limits

OLDER_COMMANDS = ("exec.keepalive",)
OLDER_VERBS = ("fetch_file",)


class Bootstrapped(Reply, frozen=True, kw_only=True):
    """As it was: what came later is skipped when it is read."""

    epoch: str
    partitions: int
    env: dict[str, str]
    limits: Limits
    commands_after: Count
    feed: str
    hold: ClassVar[bool] = False
    workspace_last: ClassVar[int | None] = None
    user_jwt: ClassVar[str | None] = None


def heartbeat(**fields: Any) -> Heartbeat:
    """Without the counts."""
    return Heartbeat(**{name: fields[name] for name in ("boot_id", "live_execs", "idle_s")})


catalog.CONTRACT_VERSION = int(sys.argv.pop(1))
for name in OLDER_COMMANDS:
    del catalog.COMMANDS[name]
setattr(bootstrap, "Bootstrapped", Bootstrapped)  # noqa: B010 - mypy knows it as a class

from sandreel_runnerd import __main__ as runnerd
from sandreel_runnerd import daemon, service, vitals

setattr(vitals, "Heartbeat", heartbeat)  # noqa: B010 - as a name of that module, which it does not export


class Service(service.Service):
    @property
    def verbs(self) -> Mapping[str, Callable[[str, bytes], Awaitable[bytes]]]:
        return {verb: handler for verb, handler in super().verbs.items() if verb not in OLDER_VERBS}


setattr(daemon, "Service", Service)  # noqa: B010 - the same

if __name__ == "__main__":
    sys.exit(runnerd.main())
