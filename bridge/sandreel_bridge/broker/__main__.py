"""`python -m sandreel_bridge.broker`: grants, leases and revokes. Any number may run."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from contextlib import AsyncExitStack

from sandreel_bridge.broker.github_app import GitHubApp
from sandreel_bridge.broker.postgres import PostgresVault, open_vault
from sandreel_bridge.broker.postgres_tokens import PostgresTokens
from sandreel_bridge.broker.service import Broker, Plan
from sandreel_bridge.broker.settings import Settings
from sandreel_core.errors import Unavailable
from sandreel_core.runtime import Role, run_role
from sandreel_runnerd.init import guard

_RETRY_S = 1.0
_PRUNE_EVERY_S = 3600.0


async def serve(role: Role[Settings]) -> None:
    """Until it is cancelled. Raises Misconfigured when the keys are not the vault's."""
    settings = role.settings
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        vault = await _open(role, stack)
        if await asyncio.to_thread(lambda: vault.source.is_open_to_others):
            role.log.warning("every user of this machine can read the vault's keys", file=str(vault.source))
        plan = Plan(
            node=socket.gethostname() or "unknown",
            partitions=role.installation.partitions,
            lease_s=settings.lease_s,
            command_max_age_s=role.installation.cmd_max_age_s,
        )
        group.create_task(_prune(role, vault), name="prune")
        tokens = PostgresTokens(vault)
        broker = Broker(role.bus, vault, tokens, GitHubApp(), plan, health=role.health, metrics=role.metrics)
        await broker.run(role.ready)


async def _open(role: Role[Settings], stack: AsyncExitStack) -> PostgresVault:
    """As soon as its database answers."""
    opened = open_vault(role.settings.vault_dsn(), role.settings.keys())
    while True:
        try:
            vault = await stack.enter_async_context(opened)
        except Unavailable as error:
            role.health.trouble("vault", "the vault cannot be asked: no lease is given")
            role.log.warning("the vault is away", problem=str(error))
            await asyncio.sleep(_RETRY_S * (0.5 + random.random()))  # noqa: S311 - jitter
            opened = open_vault(role.settings.vault_dsn(), role.settings.keys())
        else:
            role.health.well("vault")
            return vault


async def _prune(role: Role[Settings], vault: PostgresVault) -> None:
    while True:
        try:
            gone = await vault.forget_notes(role.settings.audit_days)
        except Unavailable as error:
            role.log.warning("the vault's audit was not cut", problem=str(error))
        else:
            if gone:
                role.log.info("the vault's audit was cut", lines=gone)
        await asyncio.sleep(_PRUNE_EVERY_S * (0.5 + random.random()))  # noqa: S311 - jitter


if __name__ == "__main__":
    guard()  # before the vault's keys are read: they are in no core file, nor open to others of the same user
    sys.exit(run_role("broker", Settings, serve))
