"""`python -m tests.support.bridge_process`: a bridge with a gateway in memory, in a process that a test can kill or halt. Says "ready"."""

from __future__ import annotations

import sys

from sandreel_bridge.service import Bridge
from sandreel_bridge.settings import Settings
from sandreel_core.runtime import Role, run_role
from tests.support.memory_gateway import MemoryGateway


async def serve(role: Role[Settings]) -> None:
    bridge = Bridge(role.bus, role.settings, MemoryGateway(), metrics=role.metrics)

    def ready() -> None:
        role.ready()
        sys.stdout.write(f"ready {bridge.source}\n")
        sys.stdout.flush()

    await bridge.run(ready)


if __name__ == "__main__":
    sys.exit(run_role("bridge", Settings, serve))
