"""The fence around a real network of a real engine: what gets out without it, that nothing does with it, and no trace of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator, Generator
from dataclasses import replace
from ipaddress import IPv4Address

import docker
import pytest
import pytest_asyncio
from docker.models.containers import Container

from sandreel_core.egress.register import Place
from sandreel_core.errors import Misconfigured, Unavailable
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.fence import Door, OrgNetwork, chains, of_inspection
from sandreel_core.spawner.fence_docker import KIND, Tools, prove, raise_fence, take_down_fence
from tests.support.egress import echo, gate, server
from tests.support.fenced import internal_network
from tests.support.mark import OURS

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.xdist_group("fence"),
    pytest.mark.skipif(os.getuid() != 0 or not shutil.which("iptables"), reason="the firewall is root's to look at"),
]
LIMIT_S = 60
# In a sandbox: CONNECT through the proxy, then one word to and fro.
THROUGH = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as s:
    s.sendall(b"CONNECT " + sys.argv[3].encode() + b" HTTP/1.1\\r\\n\\r\\n")
    head = s.recv(4096)
    if b" 200 " in head:
        s.sendall(b"hello")
        head += s.recv(64)
print(head.decode())
"""


@pytest_asyncio.fixture
async def tools(fence_image: str) -> AsyncGenerator[Tools, None]:
    async with Engine.open() as engine:
        yield Tools(engine, fence_image, OURS)


@pytest.fixture
def network(docker_engine: docker.DockerClient) -> Generator[OrgNetwork, None, None]:
    with internal_network(docker_engine) as (made, bridge, subnet):
        yield OrgNetwork(str(made.name), bridge, subnet)


@pytest_asyncio.fixture(autouse=True)
async def _no_trace(tools: Tools) -> AsyncGenerator[None, None]:
    yield
    await take_down_fence(tools)
    await take_down_fence(tools)
    assert firewall() == []


def firewall() -> list[str]:
    """The rules that name our chains, of both versions."""
    mine = chains(OURS)
    found = []
    for program in ("iptables", "ip6tables"):
        out = subprocess.run([program, "-w", "10", "-S"], capture_output=True, text=True, check=True).stdout
        found += [f"{program} {line}" for line in out.splitlines() if mine.host in line or mine.through in line]
    return found


def sandbox(
    client: docker.DockerClient, image: str, network: OrgNetwork, *argv: str, address: str | None = None
) -> Container:
    made = client.containers.create(
        image, ["python3", "-I", "-c", *argv], user="10001:10001", cap_drop=["ALL"], network=network.name
    )
    if address is not None:
        joined = client.networks.get(network.name)
        joined.disconnect(made)
        joined.connect(made, ipv4_address=address)
    made.start()
    return made


def with_door(network: OrgNetwork, *doors: Door) -> OrgNetwork:
    return OrgNetwork(network.name, network.bridge, network.subnet, doors)


def address_of(network: OrgNetwork, number: int) -> IPv4Address:
    return list(network.subnet.hosts())[number - 1]


async def test_without_a_fence_the_host_and_the_neighbours_are_reached(tools: Tools, network: OrgNetwork) -> None:
    """What an internal network of the engine does not do by itself; and that the probe sees it."""
    proof = await prove(tools, network, others=("bridge", "no-such-network"))
    assert not proof.proven
    told = "\n".join(proof.holes)
    assert f"the host (tcp {address_of(network, 1)} port " in told
    assert "a neighbour on the same network (tcp" in told
    assert "packets arrived at the host" in told
    assert "network no-such-network does not exist" in told
    # The engine's resolver asks within the sandbox alone, as sandboxes are made.
    assert "resolver" not in told
    assert "raw packets" not in told


async def test_with_a_fence_nothing_gets_out_but_through_its_doors(
    docker_engine: docker.DockerClient, tools: Tools, network: OrgNetwork
) -> None:
    port, door = 4222, address_of(network, 9)
    serves = sandbox(
        docker_engine, tools.image, network, f"import http.server as h; h.test(port={port})", address=str(door)
    )
    with internal_network(docker_engine) as (other, bridge, subnet):
        neighbour = OrgNetwork(str(other.name), bridge, subnet)
        described = await tools.engine.network(network.name)
        fenced = of_inspection(described, {str(serves.name): port})
        assert (fenced.bridge, [each.address for each in fenced.doors]) == (network.bridge, [door])
        await raise_fence(tools, [fenced, neighbour])
        before = firewall()
        await raise_fence(tools, [neighbour, fenced])
        assert firewall() == before, "a second run changes nothing"
        proof = await prove(tools, fenced, others=("bridge", neighbour.name))
        assert proof.holes == ()
        assert proof.proven
        assert proof.tried > 40

        # Whenever the engine makes a network, its own chain is not called for a moment.
        jump = ["FORWARD", "-j", "DOCKER-USER"]
        subprocess.run(["iptables", "-w", "10", "-D", *jump], check=True)
        try:
            assert (await prove(tools, fenced, others=("bridge", neighbour.name))).holes == ()
        finally:
            if subprocess.run(["iptables", "-w", "10", "-C", *jump], stderr=subprocess.DEVNULL, check=False).returncode:
                subprocess.run(["iptables", "-w", "10", "-I", "FORWARD", "1", "-j", "DOCKER-USER"], check=True)

        # Rules of somebody else that come first do not take the fence's place: the next run puts it first again.
        mine = chains(OURS)
        subprocess.run(["iptables", "-w", "10", "-I", "INPUT", "1", "-i", bridge, "-j", "ACCEPT"], check=True)
        try:
            await raise_fence(tools, [fenced])
            shown = subprocess.run(["iptables", "-w", "10", "-S", "INPUT"], capture_output=True, text=True, check=True)
            lines = shown.stdout.splitlines()
            assert lines.index(f"-A INPUT -j {mine.host}") < lines.index(f"-A INPUT -i {bridge} -j ACCEPT")
            assert lines.count(f"-A INPUT -j {mine.host}") == 1
        finally:
            subprocess.run(["iptables", "-w", "10", "-D", "INPUT", "-i", bridge, "-j", "ACCEPT"], check=True)
        assert not any(bridge in rule for rule in firewall()), "a network that is not named any more has no rules"
    await asyncio.to_thread(serves.remove, force=True)


async def test_a_sandbox_gets_out_through_the_proxy_as_its_own_session(
    docker_engine: docker.DockerClient, tools: Tools, network: OrgNetwork
) -> None:
    """The proxy knows it by its address, which it cannot change."""
    gateway, mine, other = (address_of(network, number) for number in (1, 7, 8))
    async with server(echo) as far, gate(host=str(gateway)) as here:
        here.ports[443] = far
        await here.register.place(mine, Place("acme", "s1", "1-1"))
        await raise_fence(tools, [with_door(network, Door("the proxy", gateway, here.port))])

        async def through(target: str, address: IPv4Address) -> str:
            argv = (THROUGH, str(gateway), str(here.port), target)
            made = await asyncio.to_thread(
                lambda: sandbox(docker_engine, tools.image, network, *argv, address=str(address))
            )
            try:
                await asyncio.to_thread(made.wait, timeout=LIMIT_S)
                return str((await asyncio.to_thread(made.logs)).decode())
            finally:
                await asyncio.to_thread(made.remove, force=True)

        assert (await through("far.example:443", mine)).endswith("hello\n")
        answers = await asyncio.gather(through("169.254.169.254:443", mine), through("far.example:443", other))
        assert "link-local, where clouds serve metadata" in answers[0]
        assert "belongs to no session" in answers[1]
        assert [(each.host, each.port) for each in await here.told(1)] == [("169.254.169.254", 443)]


async def test_what_cannot_be_done_is_one_line(tools: Tools, network: OrgNetwork) -> None:
    with pytest.raises(Misconfigured, match="sandreel-no-such-image:1 is not on this machine: `make image`"):
        await raise_fence(replace(tools, image="sandreel-no-such-image:1"), [])
    with pytest.raises(Misconfigured, match="cannot probe"):
        await prove(replace(tools, python="false"), network, others=())
    gone = OrgNetwork("w-egress-gone", "we-gone", network.subnet)
    with pytest.raises(Unavailable, match="is not there"):
        await prove(tools, gone, others=())
    assert await tools.engine.containers({plan.INSTALLATION: OURS, plan.KIND: KIND}) == []
