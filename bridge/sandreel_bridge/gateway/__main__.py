"""`python -m sandreel_bridge.gateway`: the built-in gateway as a process of its own."""

from __future__ import annotations

import asyncio
import sys

from sandreel_bridge.gateway.service import Service
from sandreel_bridge.gateway.settings import Settings
from sandreel_core.runtime import Role, run_role
from sandreel_runnerd.init import guard


async def serve(role: Role[Settings]) -> None:
    """Serve until cancelled. Calls that are under way then are cut and recorded."""
    settings = await asyncio.to_thread(role.settings.with_keys)
    service = Service(
        role.bus,
        settings,
        partitions=role.installation.partitions,
        replicas=role.installation.replicas,
        health=role.health,
        metrics=role.metrics,
    )

    def ready(where: tuple[str, int] | None) -> None:
        host, port = where or (",".join(role.settings.networks), role.settings.port)
        role.log.info("gateway serves", host=host, port=port, providers=sorted(settings.keys))
        role.ready()

    await service.run(ready)


if __name__ == "__main__":
    guard()  # before the providers' keys are read: sessions of a machine without root run as the same user
    sys.exit(run_role("gateway", Settings, serve, ensures=False))
