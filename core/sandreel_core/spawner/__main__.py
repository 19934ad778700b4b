"""`python -m sandreel_core.spawner`: the spawner as a process of its own."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.jetstream_door import Door
from sandreel_core.runtime import Role, run_role
from sandreel_core.settings import Bus as Installation
from sandreel_core.spawner.backends import open_backend
from sandreel_core.spawner.boot_terms import BootTerms
from sandreel_core.spawner.commands import Limits
from sandreel_core.spawner.quota import Quotas
from sandreel_core.spawner.reconcile import Rules
from sandreel_core.spawner.service import Plan, Spawner
from sandreel_core.spawner.settings import Settings, installation_key, issuer


def plan_of(settings: Settings, installation: Installation, key: bytes) -> Plan:
    """The spawner's plan from what an operator has set."""
    name = settings.installation_name(key)
    return Plan(
        terms=BootTerms(
            installation=name,
            key=key,
            partitions=installation.partitions,
            nats_urls=settings.runnerd_nats_urls or installation.nats_urls,
            issuer=issuer(settings),
            nats_user=settings.runnerd_nats_user,
            nats_password=settings.runnerd_nats_password,
            spool_bytes=settings.runnerd_spool_bytes,
            max_live_execs=settings.runnerd_max_live_execs,
            heartbeat_s=settings.runnerd_heartbeat_s,
            command_max_age_s=installation.cmd_max_age_s,
            log_level=settings.runnerd_log_level,
        ),
        rules=Rules(
            installation=name,
            node=settings.node_name,
            backend=settings.backend,
            late_s=settings.late_s,
            boot_within_s=settings.create_timeout_s,
            orphan_after_s=settings.create_timeout_s,
        ),
        limits=Limits(
            max_ttl_s=settings.max_ttl_s,
            max_idle_s=settings.max_idle_s,
            stop_within_s=settings.stop_timeout_s,
            boot_within_s=settings.create_timeout_s,
        ),
        quotas=Quotas(
            per_owner=settings.max_sessions_per_owner,
            per_org=settings.max_sessions_per_org,
            per_host=settings.max_sessions,
        ),
        replicas=installation.replicas,
        sweep_s=settings.sweep_s,
        places=settings.backend == "docker" and settings.docker.proxy is not None,
        roles=frozenset(settings.roles),
    )


async def serve(role: Role[Settings]) -> None:
    """Serve until cancelled. Sessions go on without us."""
    settings = role.settings
    key = await asyncio.to_thread(installation_key, settings)
    plan = plan_of(settings, role.installation, key)
    async with (
        AsyncExitStack() as stack,
        open_backend(settings, plan.rules.installation, metrics=role.metrics) as backend,
    ):
        if plan.terms.issuer is not None and isinstance(role.bus, JetStreamBus):
            # Where users are confined to their organisation, this is how they read.
            await stack.enter_async_context(Door(role.bus).open())
        await Spawner(role.bus, backend, plan, health=role.health, metrics=role.metrics).run(role.ready)


if __name__ == "__main__":
    sys.exit(run_role("spawner", Settings, serve))
