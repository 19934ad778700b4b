"""What cannot be: one clear refusal, and nothing left behind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.contract.session import Limits
from sandreel_core.errors import Misconfigured, Refused, Unavailable
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_backend import DockerBackend
from sandreel_core.spawner.docker_network import Service
from tests.support import engine, rigs
from tests.support.mark import OURS
from tests.support.rigs import KEY, Rig, seen, spec


@pytest.mark.parametrize(
    ("image", "code", "says"),
    [
        ("no-such-image:1", "NO_IMAGE", "docker pull"),
        ("--privileged", "BAD_IMAGE", "no name of an image"),
        ("UPPER:::case", "BAD_IMAGE", "no name of an image"),
    ],
)
async def test_an_image_that_is_none(rig: Rig, image: str, code: str, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        await rig.backend.create(spec(image=image))
    assert refused.value.code == code
    assert "\n" not in str(refused.value)
    assert rig.left() == []


async def test_an_image_without_runnerd(rig: Rig) -> None:
    name = "sandreel-nothing:1"
    await asyncio.to_thread(engine.docker, "import", "-", name, stdin=engine.empty_archive())
    with pytest.raises(Refused, match="cannot be started") as refused:
        await rig.backend.create(spec(image=name))
    assert refused.value.code == "BAD_IMAGE"
    assert rig.left() == []


@pytest.mark.parametrize(("limits", "says"), [({"cpus": 1000.0}, "CPUs"), ({"disk_bytes": 1 << 30}, "disk limits")])
async def test_a_shape_that_this_machine_cannot_keep(rig: Rig, limits: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused, match=says):
        await rig.backend.create(spec(limits=Limits(**limits)))
    assert rig.left() == []


async def test_addresses_that_are_used_up(tmp_path: Path) -> None:
    async with rigs.docker(tmp_path, pool="10.202.255.0/26") as rig:
        await rig.backend.create(spec())
        await seen(rig)
        with pytest.raises(Refused, match=r"10\.202\.255\.0/26 are taken") as refused:
            await rig.backend.create(spec(Key("umbrella", "one")))
        assert refused.value.code == "NO_ADDRESSES"
        found = await rig.backend.list()
        assert [sandbox.key for sandbox in found] == [KEY]
        assert not any("one" in name and "umbrella" in name for name in rig.left())


async def test_workspaces_where_nothing_can_be_written(tmp_path: Path) -> None:
    async with rigs.docker(tmp_path, workspaces=Path("/sys/sandreel")) as rig:  # nobody makes files there, root neither
        with pytest.raises(Refused, match=r"/sys/sandreel \(\[docker\] workspaces\) cannot be written") as refused:
            await rig.backend.create(spec())
        assert refused.value.code == "WORKSPACE_UNWRITABLE"
        assert rig.left() == []


async def test_a_workspace_and_a_cache_that_were_made_and_never_filled_are_filled(rig: Rig) -> None:
    """As a spawner leaves them that is killed in between, or an engine that did not answer."""
    names = (plan.volume_name(OURS, KEY), plan.cache_name(OURS, KEY.org))
    labels = (
        plan.key_labels(OURS, KEY, "workspace") | {plan.INCARNATION: "1"},
        plan.org_labels(OURS, KEY.org, "cache"),
    )
    for name, given in zip(names, labels, strict=True):
        words = [word for label in given.items() for word in ("--label", "=".join(label))]
        await asyncio.to_thread(engine.docker, "volume", "create", *words, name)
    sandbox = await rig.backend.create(spec())
    await seen(rig)
    write = "touch /workspace/x /workspace/.home/x /cache/pip/x && echo written"
    assert await asyncio.to_thread(engine.docker, "exec", sandbox.ref, "sh", "-c", write) == "written"


async def test_a_network_that_goes_while_a_session_is_made_is_made_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the destroy of its org's last session, which sees no container yet: no image's fault, and tried again."""
    create = Engine.create

    async def late(self: Engine, name: str, body: Mapping[str, Any]) -> str:
        id = await create(self, name, body)
        if body["Labels"][plan.KIND] == "session":
            await self.remove_network(plan.network_name(OURS, KEY.org))
        return id

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "create", late)
        with pytest.raises(Unavailable, match="network has gone"):
            await rig.backend.create(spec())
    assert rig.left() == []
    await rig.backend.create(spec())
    await seen(rig)


async def test_a_service_that_is_not_there(tmp_path: Path) -> None:
    async with rigs.docker(tmp_path, services=[Service("no-such-container", "nats")]) as rig:
        with pytest.raises(Unavailable, match="no-such-container"):
            await rig.backend.create(spec())
        assert rig.left() == []


async def test_an_engine_that_is_away(tmp_path: Path) -> None:
    terms = plan.Terms(installation=OURS, node="here", image="any")
    async with DockerBackend.open(terms, locks=tmp_path, url=f"unix://{tmp_path}/none", pool=engine.POOL) as backend:
        for question in (
            backend.create(spec()),
            backend.inspect(KEY),
            backend.list(),
            backend.stop(KEY, "1-1", grace_s=1),
        ):
            with pytest.raises(Unavailable, match=r"does not answer: No such file"):
                await question


async def test_an_engine_that_never_answers(tmp_path: Path) -> None:
    path = tmp_path / "slow.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        terms = plan.Terms(installation=OURS, node="here", image="any")
        opened = DockerBackend.open(terms, locks=tmp_path, url=f"unix://{path}", pool=engine.POOL, timeout_s=0.2)
        async with opened as backend:
            with pytest.raises(Unavailable, match="timed out"):
                await backend.inspect(KEY)


@pytest.mark.parametrize("pool", ["10.0.0.0/27", "8.8.0.0/16", "10.0.0.1/16", "mine"])
async def test_a_pool_that_is_none(tmp_path: Path, pool: str) -> None:
    terms = plan.Terms(installation=OURS, node="here", image="any")
    with pytest.raises(Misconfigured, match=r"\[docker\] pool"):
        async with DockerBackend.open(terms, locks=tmp_path, pool=pool):
            pass


async def test_no_session_is_root(tmp_path: Path) -> None:
    terms = plan.Terms(installation=OURS, node="here", image="any", users={"default": (0, 1), "agent": (10001, 10001)})
    with pytest.raises(Misconfigured, match="at least 1"):
        async with DockerBackend.open(terms, locks=tmp_path, pool=engine.POOL):
            pass
