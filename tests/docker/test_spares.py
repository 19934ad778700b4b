"""Warm pools: a spare is nobody's until it is taken, then a boot like any other, and nothing of it is left over."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.errors import AlreadyExists, Misconfigured
from sandreel_core.metrics import Metrics
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner import docker_remains, docker_spare
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.docker_spare import Warm
from tests.support import engine, rigs
from tests.support.engine import docker
from tests.support.mark import OURS
from tests.support.rigs import KEY, seen_in, spec
from tests.support.system import until

WARM = Warm("acme", "default", None, 1)


def spares(state: str = "running") -> list[str]:
    """Ids of those that wait, the newest first."""
    name = docker_spare.container_name(OURS, "")
    return docker("ps", "-aq", "--filter", f"name={name}", "--filter", f"status={state}").split()


async def waits(metrics: Metrics, *, other_than: Sequence[str] = ()) -> str:
    """The id of the one that can be taken."""

    async def there() -> bool:
        found = await asyncio.to_thread(spares)
        return told(metrics, "") == len(found) == 1 and not set(found) & set(other_than)

    await until(there, "a spare waits", timeout_s=40)
    (found,) = await asyncio.to_thread(spares)
    return found


def inspected(id: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(docker("inspect", id))[0]
    return body


def workspace(id: str) -> Path:
    return Path(next(mount["Source"] for mount in inspected(id)["Mounts"] if mount["Destination"] == plan.WORKSPACE))


def told(metrics: Metrics, name: str) -> float:
    line = next(line for line in metrics.render().splitlines() if line.startswith(f"sandreel_spares{name} "))
    return float(line.split()[1])


async def test_a_spare_becomes_a_boot_like_any_other(tmp_path: Path) -> None:
    metrics = Metrics()
    async with rigs.docker(tmp_path, warm=[WARM], metrics=metrics) as rig:
        waiting = await waits(metrics)
        assert (await rig.backend.list(), await rig.backend.inspect(KEY)) == ([], None)
        sandbox = await rig.backend.create(spec())
        assert (sandbox.ref, sandbox.status, sandbox.boot_id) == (waiting, "running", "1-1")
        assert sandbox.key == KEY
        assert sandbox == await rig.backend.inspect(KEY)
        assert await rig.backend.list() == [sandbox]
        files = workspace(sandbox.ref)
        assert (await seen_in(files))["pid"] == 1
        shown = await asyncio.to_thread(docker, "inspect", sandbox.ref)
        assert "secret-token" not in shown
        # It is as hardened as one that was made for its session.
        mine, theirs = inspected(sandbox.ref), inspected((await rig.backend.create(spec(Key("umbrella", "two")))).ref)
        for each in (mine, theirs):
            each["HostConfig"].pop("NetworkMode")
            each["HostConfig"].pop("Mounts")
        assert mine["HostConfig"] == theirs["HostConfig"]
        assert mine["Config"]["User"] == theirs["Config"]["User"]
        # Its files outlive it, and a resume is no business of the pool's.
        after = await waits(metrics, other_than=[waiting])
        (files / "kept").write_text("kept")
        assert (await rig.backend.stop(KEY, "1-1", grace_s=5)).cause == "exited"
        resumed = await rig.backend.create(spec(boot=2))
        assert spares() == [after]
        assert (workspace(resumed.ref) / "kept").read_text() == "kept"
        await rig.backend.stop(KEY, "1-2", grace_s=5)
        await rig.backend.destroy(KEY, installation=OURS, boot_id="1-2")
        assert not files.exists()
        assert not [name for name in rig.left() if f"-{KEY.session}-" in name]
        assert (told(metrics, "_taken_total"), told(metrics, "_missed_total"), told(metrics, "")) == (1, 0, 1)
        await rig.backend.stop(Key("umbrella", "two"), "1-1", grace_s=0)
        await rig.backend.destroy(Key("umbrella", "two"), installation=OURS, boot_id="1-1")
    assert rig.left() == [], "the pool goes with its spawner"


async def test_what_says_where_the_files_are_may_be_pruned(tmp_path: Path) -> None:
    """`docker volume prune` takes what no container has; the files have one."""
    metrics = Metrics()
    async with rigs.docker(tmp_path, warm=[WARM], metrics=metrics) as rig:
        await waits(metrics)
        sandbox = await rig.backend.create(spec())
        files = workspace(sandbox.ref)
        await seen_in(files)
        own = plan.volume_name(OURS, KEY)
        await asyncio.to_thread(docker, "volume", "rm", own)
        await rig.backend.list()  # as every sweep does
        assert own in rig.left()
        await rig.backend.stop(KEY, "1-1", grace_s=5)
        await asyncio.to_thread(docker, "volume", "rm", own)
        resumed = await rig.backend.create(spec(boot=2))
        assert workspace(resumed.ref) == files
        await rig.backend.stop(KEY, "1-2", grace_s=5)
        await asyncio.to_thread(docker, "volume", "rm", own)
        await rig.backend.destroy(KEY, installation=OURS, boot_id="1-2")
        assert not files.exists()


async def test_what_a_killed_spawner_left_of_a_pool_goes_and_no_file_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there is no pool any more: a volume was made before its container, and outlives it for a moment."""
    monkeypatch.setattr(docker_remains, "HALF_MADE_S", -1.0)
    async with rigs.docker(tmp_path) as rig:

        def volume(token: str) -> str:
            name = docker_spare.volume_name(OURS, token)
            labels = docker_spare.volume_labels(OURS, "acme", token)
            given = (f"--label={label}={value}" for label, value in labels.items())
            return docker("volume", "create", *given, name)

        def look(name: str) -> Path:
            return Path(docker("volume", "inspect", "--format", "{{.Mountpoint}}", name))

        bare, begun, kept, lent, ended = (volume(token) for token in ("bare", "begun", "kept", "lent", "ended"))
        (look(begun) / ".home").mkdir()
        (look(kept) / "work").write_text("of nobody knows whom")
        labels = plan.key_labels(OURS, KEY, "workspace") | {plan.INCARNATION: "1", docker_spare.FILES: lent}
        docker("volume", "create", *(f"--label={each}={value}" for each, value in labels.items()), own := "own-" + OURS)
        ended_labels = plan.org_labels(OURS, "acme", "session") | {docker_spare.SPARE: "ended"}
        name = docker_spare.container_name(OURS, "ended")
        more = ("--detach", "--network=none", f"--volume={ended}:/workspace", "--entrypoint=/bin/true")
        given = (f"--label={label}={value}" for label, value in ended_labels.items())
        docker("run", f"--name={name}", *more, *given, engine.IMAGE)
        docker("wait", name)
        for _ in range(2):
            await rig.backend.list()  # as every sweep does
        left = rig.left()
        assert not {bare, begun, ended, name} & set(left)
        assert {kept, lent, own} <= set(left), "what holds files, and what a session's own volume names, stays"
        docker("volume", "rm", kept, lent, own)


async def test_one_that_has_died_costs_nothing_but_time_and_a_new_image_is_a_new_pool(tmp_path: Path) -> None:
    image = f"sandreel-spares:{OURS}"
    await asyncio.to_thread(docker, "tag", await asyncio.to_thread(engine.standin_image), image)
    try:
        metrics = Metrics()
        async with rigs.docker(tmp_path, warm=[replace(WARM, image=image)], metrics=metrics) as rig:
            first = await waits(metrics)
            await asyncio.to_thread(docker, "kill", first)
            sandbox = await rig.backend.create(spec(image=image))
            assert sandbox.status == "running"
            assert sandbox.ref != first
            await seen_in(workspace(sandbox.ref))
            second = await waits(metrics)
            await asyncio.to_thread(docker, "tag", engine.IMAGE, image)
            other = await rig.backend.create(spec(KEY._replace(session="two"), image=image))
            assert other.ref != second
            third = await waits(metrics, other_than=[second])
            assert inspected(third)["Image"] == inspected(other.ref)["Image"]
            assert inspected(third)["Image"] != inspected(sandbox.ref)["Image"]
    finally:
        await asyncio.to_thread(docker, "rmi", image)


# A spawner that takes a spare for a session, and gets no further.
_SPAWNER = """
import asyncio, sys
from pathlib import Path
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_backend import DockerBackend
from sandreel_core.spawner.docker_spare import Warm
from tests.support.rigs import spec

tell = Engine.tell

async def stuck(*given):
    if sys.argv.pop() == "told":
        await tell(*given)
    print("taken", flush=True)
    await asyncio.Event().wait()

async def main():
    installation, image, locks, pool, _ = sys.argv[1:]
    terms = plan.Terms(installation=installation, node="here", image=image)
    Engine.tell = stuck
    async with DockerBackend.open(terms, locks=Path(locks), pool=pool, warm=[Warm("acme", "default", None, 2)]) as backend:
        while backend._taking._spares._count.lines() != ["sandreel_spares 2"]:
            await asyncio.sleep(0.05)
        await backend.create(spec())

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["untold", "told"])
async def test_a_spawner_that_is_killed_while_it_takes_one_leaves_nothing_doubled(tmp_path: Path, how: str) -> None:
    image = await asyncio.to_thread(engine.standin_image)
    words = (sys.executable, "-c", textwrap.dedent(_SPAWNER), OURS, image, str(tmp_path), engine.POOL, how)
    child = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await child.stdout.readline() == b"taken\n"
    finally:
        child.send_signal(signal.SIGKILL)
        await child.wait()
    # What held their standard input is gone, so they have ended: the taken one, which never knew whose it was, as well.
    left = 1 if how == "told" else 0
    running = ("ps", "-q", "--filter", f"label=sandreel.installation={OURS}")
    await until(lambda: len(docker(*running).split()) == left, "they have ended")
    metrics = Metrics()
    async with rigs.docker(tmp_path, warm=[WARM], metrics=metrics) as rig:
        found = await rig.backend.inspect(KEY)
        assert found is not None
        assert found.boot_id == "1-1"
        if how == "told":
            assert found.status == "running", "it is adopted"
            with pytest.raises(AlreadyExists):
                await rig.backend.create(spec())
        else:
            assert found.status == "starting", "it begins anew"
            found = await rig.backend.create(spec())
        await waits(metrics)
        assert spares("exited") == []
        await seen_in(workspace(found.ref))
        assert [each.key for each in await rig.backend.list()] == [KEY]
        await rig.backend.stop(KEY, "1-1", grace_s=5)
        await rig.backend.destroy(KEY, installation=OURS, boot_id="1-1")
    assert rig.left() == []


async def test_pools_need_volumes(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"\[docker\] warm needs workspaces that are volumes"):
        async with rigs.docker(tmp_path, workspaces=tmp_path, warm=[WARM]):
            pass
