"""Ranges of a pool: none that meets another network, and an end."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Network

import pytest

from sandreel_core.spawner.docker_network import Service, free_ranges, pool_of

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
