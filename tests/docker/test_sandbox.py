"""What a session's container is, as the engine shows it and as its processes find it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from sandreel_core.contract.session import Limits
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.docker_network import Service
from tests.support import rigs
from tests.support.engine import IMAGE, docker
from tests.support.mark import OURS
from tests.support.rigs import KEY, Rig, seen, spec

OTHER = Key("umbrella", "one")
# A TCP connection that is refused or times out within a second; the port is closed everywhere.
_KNOCK = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), timeout=1)
except ConnectionRefusedError:
    print("reached")
except OSError as error:
    print("not reached")
"""


def _inside(ref: str, *words: str) -> str:
    return docker("exec", ref, *words)


def _python(ref: str, code: str, *words: str) -> str:
    return _inside(ref, "/opt/sandreel/bin/python", "-I", "-c", code, *words)


async def test_law_6_no_secret_is_in_what_the_engine_shows(rig: Rig) -> None:
    sandbox = await rig.backend.create(spec())
    await seen(rig)
    shown = await asyncio.to_thread(docker, "inspect", sandbox.ref)
    assert "secret-token" not in shown
    assert "nats://127.0.0.1:1" not in shown
    assert "secret-token" not in await asyncio.to_thread(docker, "logs", sandbox.ref)
    assert "secret-token" not in await asyncio.to_thread(docker, "top", sandbox.ref)


async def test_the_settings_pipe_is_closed_behind_them(rig: Rig) -> None:
    sandbox = await rig.backend.create(spec())
    await seen(rig)
    inspected = json.loads(await asyncio.to_thread(docker, "inspect", sandbox.ref))[0]
    assert (inspected["Config"]["OpenStdin"], inspected["Config"]["StdinOnce"]) == (True, True)
    # The stand-in writes what it sees only once its standard input has ended.
    assert (await seen(rig))["pid"] == 1


async def test_a_process_of_the_session_may_do_nothing_but_its_work(rig: Rig) -> None:
    sandbox = await rig.backend.create(spec(limits=Limits(memory_bytes=96 << 20, pids=40)))
    found = await seen(rig)
    status = dict(line.split(":\t", 1) for line in _inside(sandbox.ref, "cat", "/proc/self/status").splitlines())
    assert status["Uid"].split() == ["65534"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    limits = _inside(sandbox.ref, "sh", "-c", "ulimit -n; ulimit -c; ulimit -f").split()
    assert limits[:2] == ["1024", "0"]
    refused = _inside(sandbox.ref, "sh", "-c", "touch /etc/x /usr/x /opt/sandreel/x 2>&1 || true")
    assert refused.count("Read-only file system") == 3
    assert _inside(sandbox.ref, "sh", "-c", "touch /tmp/x /dev/shm/x /cache/pip/x $HOME/x && echo done") == "done"
    assert "oom_score_adj" not in found["env"]
    assert _inside(sandbox.ref, "cat", "/proc/1/oom_score_adj") == "500"
    inspected = json.loads(docker("inspect", sandbox.ref))[0]["HostConfig"]
    assert (inspected["Memory"], inspected["MemorySwap"], inspected["PidsLimit"]) == (96 << 20, 96 << 20, 40)


async def test_orgs_do_not_reach_each_other(rig: Rig) -> None:
    mine, theirs = await asyncio.gather(rig.backend.create(spec()), rig.backend.create(spec(OTHER)))
    await asyncio.gather(seen(rig), seen(rig, OTHER))
    networks = [json.loads(docker("network", "inspect", plan.network_name(OURS, key.org)))[0] for key in (KEY, OTHER)]
    subnets = {network["IPAM"]["Config"][0]["Subnet"] for network in networks}
    assert len(subnets) == 2
    assert all(subnet.endswith("/26") for subnet in subnets)
    assert all(network["Internal"] for network in networks)
    address = json.loads(docker("inspect", theirs.ref))[0]["NetworkSettings"]["Networks"]
    (there,) = (network["IPAddress"] for network in address.values())
    assert await asyncio.to_thread(_python, mine.ref, _KNOCK, there) == "not reached"
    assert await asyncio.to_thread(_python, mine.ref, _KNOCK, "1.1.1.1") == "not reached"


async def test_an_orgs_network_comes_and_goes_with_its_sessions(rig: Rig) -> None:
    two = Key("acme", "two")
    for key in (KEY, two):
        await rig.backend.create(spec(key))
        await seen(rig, key)
        await rig.backend.stop(key, "1-1", grace_s=5)
    network = plan.network_name(OURS, "acme")
    await rig.backend.destroy(KEY, installation=OURS, boot_id="1-1")
    assert network in rig.left()
    await rig.backend.destroy(two, installation=OURS, boot_id="1-1")
    assert rig.left() == []


async def test_the_last_sessions_of_an_org_are_destroyed_at_once(tmp_path: Path) -> None:
    """The network goes with the first of them: to whoever comes next the service is not in it any more."""
    service = f"sandreel-test-{OURS}-service"
    docker("create", "--name", service, IMAGE)
    try:
        async with rigs.docker(tmp_path, services=[Service(service, "bus")]) as rig:
            keys = [Key("acme", name) for name in ("one", "two", "three")]
            for key in keys:
                await rig.backend.create(spec(key))
                await seen(rig, key)
            await asyncio.gather(*(rig.backend.stop(key, "1-1", grace_s=5) for key in keys))
            await asyncio.gather(*(rig.backend.destroy(key, installation=OURS, boot_id="1-1") for key in keys))
            assert rig.left() == []
    finally:
        docker("rm", "-f", service)


async def test_files_of_one_org_share_caches_whoever_wrote_them(rig: Rig) -> None:
    one = await rig.backend.create(spec())
    two = await rig.backend.create(spec(Key("acme", "two"), profile="agent"))
    await seen(rig)
    await seen(rig, Key("acme", "two"))
    _inside(one.ref, "sh", "-c", "echo kept > /cache/pip/wheel")
    assert _inside(two.ref, "cat", "/cache/pip/wheel") == "kept"
    assert "not permitted" in _inside(two.ref, "sh", "-c", "rm -f /cache/pip/wheel 2>&1 || true")


async def test_workspaces_may_be_directories_of_the_host(tmp_path: Path) -> None:
    root = tmp_path / "files"
    tmp_path.chmod(0o755)
    async with rigs.docker(tmp_path, workspaces=root) as rig:
        rig.workspace = lambda key: root / OURS / key.org / key.session / "workspace"
        await rig.backend.create(spec())
        await seen(rig)
        assert rig.workspace(KEY).stat().st_uid == 65534
        await rig.backend.stop(KEY, "1-1", grace_s=5)
        (rig.workspace(KEY) / "kept").write_text("kept")
        await rig.backend.create(spec(boot=2))
        assert (rig.workspace(KEY) / "kept").read_text() == "kept"
        await rig.backend.stop(KEY, "1-2", grace_s=5)
        await rig.backend.destroy(KEY, installation=OURS, boot_id="1-2")
        assert not rig.workspace(KEY).exists()
        assert rig.left() == []
