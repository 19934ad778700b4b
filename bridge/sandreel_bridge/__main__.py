"""`python -m sandreel_bridge`: the bridge as a process of its own."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

from sandreel_bridge.gateway.client import GatewayClient
from sandreel_bridge.gateway.port import Gateway
from sandreel_bridge.service import Bridge
from sandreel_bridge.settings import Settings
from sandreel_core.errors import Misconfigured
from sandreel_core.runtime import Role, run_role
from sandreel_runnerd.init import guard


async def serve(role: Role[Settings]) -> None:
    """Serve until cancelled. Turns go on without us, and another bridge takes them up."""
    async with AsyncExitStack() as stack:
        bridge = Bridge(
            role.bus,
            role.settings,
            await _gateway(role, stack),
            partitions=role.installation.partitions,
            replicas=role.installation.replicas,
            command_max_age_s=role.installation.cmd_max_age_s,
            metrics=role.metrics,
        )
        await bridge.run(role.ready)


async def _gateway(role: Role[Settings], stack: AsyncExitStack) -> Gateway | None:
    """Raises Misconfigured."""
    settings = role.settings
    if settings.gateway_url is None:
        return None
    if settings.bifrost_url is None:
        return GatewayClient(role.bus)
    if settings.bifrost_password is None:
        raise Misconfigured("[bridge] bifrost_url is set, and bifrost_password (or bifrost_password_file) is not")
    from sandreel_bridge.gateway.bifrost import Bifrost  # noqa: PLC0415 - it loads an HTTP client, which no other bridge needs

    names = settings.bifrost_username, settings.bifrost_password, settings.bifrost_models
    return await stack.enter_async_context(Bifrost(settings.bifrost_url, *names, owner=settings.bifrost_owner))


if __name__ == "__main__":
    guard()  # it has turns' keys in its memory, and a gateway's password in its settings
    sys.exit(run_role("bridge", Settings, serve))
