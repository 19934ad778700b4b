"""Containers that serve sandboxes stay in their networks, also when somebody has removed one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.docker_network import Service
from tests.support import engine, rigs
from tests.support.mark import OURS
from tests.support.rigs import KEY, seen, spec
from tests.support.system import until

NAME, OTHER = f"sandreel-service-{os.getpid()}", f"sandreel-service-{os.getpid()}-b"


def run(name: str) -> None:
    sleep = ("--entrypoint", "/opt/sandreel/bin/python", engine.IMAGE, "-c", "import time; time.sleep(600)")
    engine.docker("run", "-d", "--name", name, "--label", f"sandreel.installation={OURS}", *sleep)


@pytest.fixture
def services() -> Iterator[list[Service]]:
    try:
        for name in (NAME, OTHER):
            run(name)
        yield [Service(NAME, "nats"), Service(OTHER, "egress")]
    finally:
        engine.sweep(OURS)


def aliases(name: str, org: str) -> list[str]:
    """Under which names it is known in the org's network."""
    networks = json.loads(engine.docker("inspect", name))[0]["NetworkSettings"]["Networks"]
    return (networks.get(plan.network_name(OURS, org)) or {}).get("Aliases") or []


async def test_a_service_that_was_removed_is_joined_as_soon_as_it_is_there_again(
    tmp_path: Path, services: list[Service]
) -> None:
    """Nothing sweeps here: what is told is the engine's event."""
    two = Key("umbrella", "two")
    async with rigs.docker(tmp_path, services=services) as rig:
        for key in (KEY, two):
            await rig.backend.create(spec(key))
            await seen(rig, key)
        assert "nats" in aliases(NAME, "acme")
        await asyncio.to_thread(engine.docker, "rm", "-f", "-v", NAME)
        # The other one alone starts: what cannot be joined now is in nobody's way, and is not forgotten.
        await asyncio.to_thread(engine.docker, "restart", "-t", "0", OTHER)
        await asyncio.to_thread(run, NAME)
        for org in ("acme", "umbrella"):
            await until(lambda org=org: "nats" in aliases(NAME, org), "it is joined", timeout_s=20)
