"""A real Docker engine, with networks of this test process's own and an image that can raise and prove a fence."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Generator
from ipaddress import IPv4Network
from pathlib import Path

import docker
import docker.errors
import docker.types
import pytest
from docker.models.networks import Network

IMAGE = "sandreel-fence:dev"
# What can be built from where there is no registry, and what is pulled elsewhere.
BASES = ("sandreel-base:trixie", "python:3.12-slim-bookworm")
FENCE = Path(__file__).parents[2] / "image" / "fence"
RANGE = IPv4Network("10.204.0.0/16")


@pytest.fixture(scope="session")
def docker_engine() -> Generator[docker.DockerClient, None, None]:
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except docker.errors.DockerException:
        pytest.skip("no Docker engine runs here")
    yield client
    client.close()


@pytest.fixture(scope="session")
def fence_image(docker_engine: docker.DockerClient) -> str:
    with contextlib.suppress(docker.errors.ImageNotFound):
        return str(docker_engine.images.get(IMAGE).tags[0])
    for base in BASES:
        with contextlib.suppress(docker.errors.ImageNotFound):
            docker_engine.images.get(base)
            docker_engine.images.build(path=str(FENCE), tag=IMAGE, buildargs={"BASE_IMAGE": base}, rm=True)
            return IMAGE
    pytest.skip("no image to build the fence's from: `make image`")


@contextlib.contextmanager
def internal_network(engine: docker.DockerClient) -> Generator[tuple[Network, str, IPv4Network], None, None]:
    """(an org's network, its bridge, its /26), removed afterwards with what is in it."""
    name = f"w-egress-{random.randrange(1 << 32):08x}"
    ranges = list(RANGE.subnets(new_prefix=26))
    while True:
        subnet = random.choice(ranges)
        pool = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=str(subnet))])
        bridge = f"we-{name[-8:]}"
        try:
            options = {"com.docker.network.bridge.name": bridge}
            network = engine.networks.create(name, internal=True, ipam=pool, options=options)
        except docker.errors.APIError as error:
            if "overlaps" not in str(error):
                raise
            continue
        break
    try:
        yield network, bridge, subnet
    finally:
        network.reload()
        for container in network.containers:
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True)
        network.remove()
