"""`python -m sandreel_core.egress`: the egress proxy as a process of its own."""

from __future__ import annotations

import sys

from sandreel_core.egress.service import Egress
from sandreel_core.egress.settings import Settings
from sandreel_core.runtime import Role, run_role


async def serve(role: Role[Settings]) -> None:
    """Serve until cancelled. Tunnels end with the process."""
    egress = Egress(
        role.bus,
        role.settings,
        partitions=role.installation.partitions,
        replicas=role.installation.replicas,
        health=role.health,
        metrics=role.metrics,
    )

    def ready(where: tuple[str, int]) -> None:
        role.log.info("proxy listens", host=where[0], port=where[1])
        role.ready()

    await egress.run(ready)


if __name__ == "__main__":
    sys.exit(run_role("egress", Settings, serve, ensures=False))
