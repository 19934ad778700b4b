"""Nothing of a secret is in what the container engine knows, keeps or shows, nor anywhere else of a stack whose sessions are
containers (issue 7, part 5); and whatever was planted there is found, in every place and however it was written."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sandreel_core.contract import exec as x
from sandreel_core.images import image
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.docker_plan import container_name, volume_name
from sandreel_runnerd.mask import MARKER
from tests.support import engine
from tests.support.canary import TELL, Canaries, Planted, leased, messages_of, of_stack, planted
from tests.support.engine import docker
from tests.support.lender import grant, lease
from tests.support.system import ORG, STREAM, Site, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300), pytest.mark.xdist_group("docker")]

FOREVER = "import os, time\nwhile True: print(os.environ['TOKEN'], os.environ['PLANTED'], flush=True); time.sleep(0.05)"
# Every place that is looked at.
PLACES = (
    "a message on evt",
    "a message on cmd",
    "a row of reel",
    "logs/",
    "docker logs",
    "docker inspect",
    "docker top",
    "layers of",
    "history of",
    "words of process",
    "variables of process",
    "the spool",
    "the workspace",
    "the result",
)


async def test_no_secret_is_anywhere_in_a_stack_of_containers_and_what_is_planted_is(site: Site) -> None:
    values, plants = leased(), planted()
    canaries = Canaries(values | of_stack(site.stack) | plants.values)
    session = await site.session(env={"PLANTED": plants.text})
    await grant(site, session, values)
    refs = lease(*values)
    for fields in ({}, {"tty": x.Terminal()}):
        handle = await site.client.exec(ORG, session, ["python3", "-Ic", TELL], secret_env=refs, **fields)  # type: ignore[arg-type]
        result = await handle.collect()
        assert (result.exit_code, MARKER in result.stdout) == (0, True), result.stderr
        canaries.look("the result", result.stdout + result.stderr)
    kept = await site.client.run(ORG, session, ["sh", "-c", 'printf %s "$PLANTED" > planted'])
    assert kept.exit_code == 0
    holder = await site.client.exec(ORG, session, ["python3", "-Ic", FOREVER, plants.text], secret_env=refs)
    installation = site.stack.place.keys().installation
    container = container_name(installation, Key(ORG, session), "1-1")
    canaries.look("the spool", await spooled(site, container))
    with planting(plants, site) as (beside, tag):
        await asyncio.to_thread(look_at_engine, canaries, installation, container, beside, tag)
        canaries.look_at_processes({holder.id: frozenset(values)}, {})
    workspace = engine.volume_path(volume_name(installation, Key(ORG, session)))
    canaries.look("the workspace", b"\n".join(each.read_bytes() for each in workspace.rglob("*") if each.is_file()))
    await holder.cancel()
    await holder.collect(max_bytes=64 << 20)
    for stream, filter in ((STREAM, "evt.>"), ("CMD", "cmd.>")):
        for subject, body in await messages_of(site.stack, stream, filter):
            canaries.look_at_json(f"a message on {subject}", body)
    await site.projected()
    assert await canaries.look_at_postgres(site.dsn) > 20
    for log in (site.data / "logs").iterdir():
        canaries.look(f"logs/{log.name}", log.read_bytes())
    assert plants.others(canaries.seen) == []
    assert plants.missing(canaries.seen, PLACES) == []


@contextmanager
def planting(plants: Planted, site: Site) -> Iterator[tuple[str, str]]:
    """A container and an image in which they are, and a log file. The container's name, the image's tag."""
    tag = f"sandreel-planted:{os.urandom(6).hex()}"
    quoted = json.dumps(plants.text)
    recipe = f"FROM scratch\nCOPY planted /planted\nLABEL planted={quoted}\nENV PLANTED={quoted}\n"
    engine.build(tag, {"Dockerfile": recipe.encode(), "planted": plants.text.encode()})
    shell = ("--entrypoint", "/bin/sh", engine.IMAGE, "-c", 'echo "$0"; exec sleep 600', plants.text)
    container = docker("run", "--detach", "--network", "none", "--env", f"PLANTED={plants.text}", *shell)
    (site.data / "logs" / "planted.log").write_text(plants.text)
    try:
        yield container, tag
    finally:
        docker("rm", "--force", container)
        docker("rmi", "--force", tag)


def look_at_engine(canaries: Canaries, installation: str, container: str, beside: str, tag: str) -> None:
    """All objects and their logs, what was written into the container's own layer, its processes, the images' layers."""
    # The fence's one-shots come and go: it is proven anew when NATS was away.
    objects = [name for name in engine.objects(installation) if not name.startswith("sandreel-fence-")]
    assert container in objects
    for name in (*objects, beside):
        canaries.look_at_json("docker inspect", docker("inspect", name).encode())
    containers = docker("ps", "--all", "--format", "{{.Names}}").split()
    for name in (*(name for name in objects if name in containers), beside):
        canaries.look(f"docker logs {name}", logs(name))
        canaries.look(f"docker top {name}", docker("top", name, "-eo", "pid,args").encode())
    canaries.look("docker diff", docker("diff", container).encode())
    for name in (engine.IMAGE, image("nats"), tag):
        canaries.look_at_json("docker inspect", docker("image", "inspect", name).encode())
        canaries.look(f"history of {name}", docker("history", "--no-trunc", name).encode())
    for name in (engine.IMAGE, tag):
        layers = list(engine.layers(name))
        assert len(layers) > 2
        for _, data in layers:
            canaries.look_at_much(f"layers of {name}", data)


async def spooled(site: Site, container: str) -> bytes:
    """What runnerd's spool holds while the bus is away: a file without a name, open in the container's first process."""
    pid = int(docker("inspect", "--format", "{{.State.Pid}}", container))
    held = [b""]

    def look() -> bool:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # it tries to connect meanwhile
                if fd.readlink().name.endswith(" (deleted)") and MARKER in (data := fd.read_bytes()):
                    held[0] = data
        return bool(held[0])

    await site.kill_and_hold("nats")
    try:
        await until(look, "something was spooled", timeout_s=60)
    finally:
        await site.release("nats")
    return held[0]


def logs(container: str) -> bytes:
    done = subprocess.run(["docker", "logs", container], capture_output=True, timeout=60, check=True)
    return done.stdout + done.stderr
