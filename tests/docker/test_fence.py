"""Law 8 with a real engine: no proven fence, no session, unless the operator said so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from sandreel_core.cli import main
from sandreel_core.errors import Refused
from sandreel_core.images import image
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.fence import OrgNetwork
from sandreel_core.spawner.fence_docker import Tools
from tests.support import engine, rigs
from tests.support.contained import open_contained_site
from tests.support.mark import OURS
from tests.support.rigs import seen, spec
from tests.support.system import ORG, Site

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240), pytest.mark.xdist_group("docker")]

# In a sandbox: what becomes of a connection to each `address port`.
REACH = """
import socket, sys
for address, port in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        socket.create_connection((address, int(port)), 5).close()
        print("open")
    except OSError as error:
        print(error.strerror or "timed out")
"""


async def test_a_session_reaches_the_bus_and_nothing_else_of_its_host(site: Site) -> None:
    session = await site.session()
    assert (await site.client.session(ORG, session)).state.fence == "proven"
    network = plan.network_name(site.stack.place.keys().installation, ORG)
    subnet = json.loads(engine.docker("network", "inspect", network))[0]["IPAM"]["Config"][0]["Subnet"]
    gateway = str(next(IPv4Network(subnet).hosts()))
    listener = await asyncio.start_server(lambda reader, writer: writer.close(), "0.0.0.0", 0)
    async with listener:
        where = [gateway, str(listener.sockets[0].getsockname()[1]), "169.254.169.254", "80", "nats", "4222"]
        told = await site.client.run(ORG, session, ["python3", "-c", REACH, *where])
    assert told.stdout.decode().splitlines() == ["No route to host", "No route to host", "open"], told.stderr


async def test_a_hole_is_named_and_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_: Tools, __: Sequence[OrgNetwork]) -> None:
        return

    monkeypatch.setattr("sandreel_core.spawner.docker_orgs.raise_fence", nothing)
    async with rigs.docker(tmp_path, fence_image=image("fence")) as rig:
        with pytest.raises(Refused, match=r"the host \(tcp .* is open.*--unfenced") as refused:
            await rig.backend.create(spec())
        assert refused.value.code == "FENCE_NOT_PROVEN"
        assert "\n" not in str(refused.value)
        assert rig.left() == []


async def test_sessions_that_start_at_once_share_a_proof_and_keep_it_over_a_resume(tmp_path: Path) -> None:
    try:
        async with rigs.docker(tmp_path, fence_image=image("fence")) as rig:
            keys = [Key("acme", f"s{number}") for number in range(4)]
            made = await asyncio.gather(*(rig.backend.create(spec(key)) for key in keys))
            assert {sandbox.fence for sandbox in made} == {"proven"}
            await seen(rig, keys[0])
            await rig.backend.stop(keys[0], "1-1", grace_s=5)
            assert (await rig.backend.create(spec(keys[0], boot=2))).fence == "proven"
            found = await rig.backend.inspect(keys[0])
            assert found is not None
            assert found.fence == "proven"
    finally:
        await asyncio.to_thread(engine.unfence, OURS)


async def test_without_the_fences_image_the_session_fails_in_one_line() -> None:
    async with open_contained_site(SANDREEL_DOCKER_FENCE_IMAGE="no-such-fence:1") as site:
        with pytest.raises(Refused, match="FENCE_NOT_PROVEN"):
            await site.client.create_session(ORG, "open", timeout_s=60)
        failure = (await site.client.session(ORG, "open")).state.failure
        assert failure is not None
        assert (failure.stage, failure.code) == ("provision", "FENCE_NOT_PROVEN")
        assert "image no-such-fence:1 is not on this machine: `make image`" in failure.message
        installation = site.stack.place.keys().installation
        assert not [name for name in engine.objects(installation) if "-open-" in name]


async def test_an_operator_who_says_so_gets_sessions_without_a_fence_and_sees_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with open_contained_site(SANDREEL_DOCKER_UNFENCED="true") as site:
        session = await site.session()
        await asyncio.to_thread(main, ["session", "ls", "--data", str(site.data), "--org", ORG])
        shown = [line for line in capsys.readouterr().out.splitlines() if session in line]
        assert "unfenced" in shown[0].split()
