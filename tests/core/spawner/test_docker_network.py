"""Ranges of a pool: none that meets another network, and an end. And what can be told while services are away."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any, cast

import pytest

from sandreel_core.errors import NotFound, Unavailable
from sandreel_core.spawner import docker_plan as plan
from sandreel_core.spawner.docker import Engine
from sandreel_core.spawner.docker_network import Networks, Service, free_ranges, pool_of

POOL = pool_of("10.231.0.0/24")


def test_ranges_are_given_out_one_by_one_until_there_is_none() -> None:
    taken: list[IPv4Network] = []
    while (found := next(free_ranges(POOL, taken), None)) is not None:
        taken.append(found)
    assert [str(each) for each in taken] == ["10.231.0.0/26", "10.231.0.64/26", "10.231.0.128/26", "10.231.0.192/26"]


def test_what_meets_another_network_is_passed_over() -> None:
    others = [IPv4Network("10.231.0.70/32"), IPv4Network("10.231.0.128/25"), IPv4Network("172.17.0.0/16")]
    assert [str(each) for each in free_ranges(POOL, others)] == ["10.231.0.0/26"]
    assert list(free_ranges(POOL, [IPv4Network("10.0.0.0/8")])) == []


def test_a_large_pool_is_not_counted_out() -> None:
    assert len(list(itertools.islice(free_ranges(pool_of("10.0.0.0/8"), []), 3))) == 3


@pytest.mark.parametrize(
    ("text", "service"),
    [
        ("bus", Service("bus", "bus", 4222)),
        ("bus=nats", Service("bus", "nats", 4222)),
        ("my.egress-1=egress:3128", Service("my.egress-1", "egress", 3128)),
        ("egress:3128", Service("egress", "egress", 3128)),
    ],
)
def test_a_service_has_a_name_and_one_port(text: str, service: Service) -> None:
    assert Service.read(text) == service


class Bare:
    """An engine with networks and no container."""

    def __init__(self, *orgs: str) -> None:
        self._orgs = orgs

    async def networks(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        return [{"Name": plan.network_name("ours", org), "Labels": labels, "Id": "1"} for org in self._orgs]

    async def container(self, name: str) -> dict[str, Any]:
        raise NotFound(f"no such container: {name}")


def networks(*orgs: str) -> Networks:
    return Networks(cast("Engine", Bare(*orgs)), "ours", "10.205.0.0/16", [Service("nats", "nats")])


async def test_where_there_is_no_network_nothing_is_to_be_fenced_whoever_is_away() -> None:
    """A stack that ends stops its services and its spawner at once: behind the last network no rule is to stay."""
    assert await networks().fenced() == []
    with pytest.raises(Unavailable, match="nats is not there"):
        await networks("acme").fenced()
