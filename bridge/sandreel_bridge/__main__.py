"""`python -m sandreel_bridge`: the bridge as a process of its own."""

from __future__ import annotations

import sys

from sandreel_bridge.gateway.client import GatewayClient
from sandreel_bridge.service import Bridge
from sandreel_bridge.settings import Settings
from sandreel_core.runtime import Role, run_role


async def serve(role: Role[Settings]) -> None:
    """Serve until cancelled. Turns go on without us, and another bridge takes them up."""
    bridge = Bridge(
        role.bus,
        role.settings,
        GatewayClient(role.bus) if role.settings.gateway_url else None,
        partitions=role.installation.partitions,
        replicas=role.installation.replicas,
        command_max_age_s=role.installation.cmd_max_age_s,
        health=role.health,
        metrics=role.metrics,
    )
    await bridge.run(role.ready)


if __name__ == "__main__":
    sys.exit(run_role("bridge", Settings, serve))
