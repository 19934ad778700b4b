"""Nothing of a secret is in what the container engine knows, keeps or shows (issue 7, part 5)."""

from __future__ import annotations

import asyncio
import json
import subprocess

import pytest

from sandreel_core.contract import exec as x
from sandreel_core.images import image
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.docker_plan import container_name, volume_name
from sandreel_runnerd.mask import MARKER
from tests.support import engine
from tests.support.canary import TELL, Canaries, leased, of_stack
from tests.support.engine import docker
from tests.support.lender import grant, lease
from tests.support.system import ORG, Site

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180), pytest.mark.xdist_group("docker")]


async def test_no_secret_is_in_what_the_engine_shows(site: Site) -> None:
    values = leased()
    canaries = Canaries(values | of_stack(site.stack))
    session = await site.session()
    await grant(site, session, values)
    refs = lease(*values)
    for fields in ({}, {"tty": x.Terminal()}):
        handle = await site.client.exec(ORG, session, ["python3", "-Ic", TELL], secret_env=refs, **fields)  # type: ignore[arg-type]
        result = await handle.collect()
        assert (result.exit_code, MARKER in result.stdout) == (0, True), result.stderr
        canaries.look("the result", result.stdout + result.stderr)
    holder = await site.client.exec(ORG, session, ["sleep", "600"], secret_env=refs)
    installation = site.stack.place.keys().installation
    container = container_name(installation, Key(ORG, session), "1-1")
    await asyncio.to_thread(look, canaries, installation, container)
    workspace = engine.volume_path(volume_name(installation, Key(ORG, session)))
    canaries.look_at_files(workspace, {})
    canaries.look_at_processes({holder.id: frozenset(values)}, {})
    assert canaries.seen == []


def look(canaries: Canaries, installation: str, container: str) -> None:
    """All objects and their logs, what was written into the container's own layer, its processes, the images' layers."""
    objects = engine.objects(installation)
    assert container in objects
    shown = docker("inspect", *objects)
    assert len(json.loads(shown)) == len(objects)
    canaries.look("docker inspect", shown.encode())
    for name in docker(
        "ps", "-a", "--filter", f"label=sandreel.installation={installation}", "--format", "{{.Names}}"
    ).split():
        canaries.look(f"docker logs {name}", logs(name))
        canaries.look(f"docker top {name}", docker("top", name, "-eo", "pid,args").encode())
    canaries.look("docker diff", docker("diff", container).encode())
    for name in (engine.IMAGE, image("nats")):
        canaries.look(f"layers of {name}", docker("history", "--no-trunc", name).encode())


def logs(container: str) -> bytes:
    done = subprocess.run(["docker", "logs", container], capture_output=True, timeout=60, check=True)
    return done.stdout + done.stderr
