"""The fence's rules as text, and when a probe's findings count as a proof."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from sandreel_core.errors import Misconfigured
from sandreel_core.spawner import fence as f
from sandreel_core.spawner import fence_proof as p

ACME = f.OrgNetwork(
    "sr-acme",
    "sr-acme0",
    IPv4Network("10.204.0.0/26"),
    (f.Door("nats", IPv4Address("10.204.0.2"), 4222), f.Door("egress", IPv4Address("10.204.0.3"), 3128)),
)
OTHER = f.OrgNetwork("sr-other", "sr-other0", IPv4Network("10.204.0.64/26"))
HOST = p.Witness("the host", ("10.204.0.1", "192.0.2.2"), 40000, 40001)


def rules(argv: tuple[str, ...]) -> list[str]:
    """All of both families, behind the script and the number of chunks of the first."""
    assert argv[:2] == ("/bin/sh", "-c")
    return [line for chunk in argv[5:] for line in chunk.splitlines()]


def test_the_rules_of_one_network() -> None:
    chain = f.chains("here")
    host, through = chain.host, chain.through
    four = [
        f"-A {host} -i sr-acme0 -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        f"-A {through} -i sr-acme0 -o sr-acme0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-A {host} -i sr-acme0 -d 10.204.0.2/32 -p tcp -m tcp --dport 4222 -j RETURN",
        f"-A {through} -i sr-acme0 -o sr-acme0 -d 10.204.0.2/32 -p tcp -m tcp --dport 4222 -j ACCEPT",
        f"-A {host} -i sr-acme0 -d 10.204.0.3/32 -p tcp -m tcp --dport 3128 -j RETURN",
        f"-A {through} -i sr-acme0 -o sr-acme0 -d 10.204.0.3/32 -p tcp -m tcp --dport 3128 -j ACCEPT",
        f"-A {host} -i sr-acme0 -j REJECT --reject-with icmp-admin-prohibited",
        f"-A {through} -i sr-acme0 -j REJECT --reject-with icmp-admin-prohibited",
        f"-A {through} -o sr-acme0 -j DROP",
    ]
    six = [f"-A {host} -i sr-acme0 -j DROP", f"-A {through} -i sr-acme0 -j DROP", f"-A {through} -o sr-acme0 -j DROP"]
    assert rules(f.raising("here", [ACME])) == four + six


def test_many_networks_fit_into_the_arguments_of_a_program() -> None:
    hosts = list(IPv4Network("10.0.0.0/12").subnets(new_prefix=26))[: f.MAX_NETWORKS]
    many = [
        f.OrgNetwork(
            f"n{number}",
            f"sr-{number:012x}",
            subnet,
            tuple(f.Door("d", host, 4222) for host in list(subnet.hosts())[:3]),
        )
        for number, subnet in enumerate(hosts)
    ]
    argv = f.raising("here", many)
    assert max(len(each) for each in argv) < 128 * 1024
    assert sum(len(each) + 9 for each in argv) < 2 << 20
    assert len(rules(argv)) == len(many) * (5 + 2 * 3 + 3)
    with pytest.raises(Misconfigured, match="more than the 1000"):
        f.raising("here", [*many, OTHER])


def test_the_order_of_networks_and_doors_makes_no_difference() -> None:
    turned = f.OrgNetwork(ACME.name, ACME.bridge, ACME.subnet, ACME.doors[::-1])
    assert f.raising("here", [ACME, OTHER]) == f.raising("here", [OTHER, turned])


def test_every_rule_is_of_the_installations_own_chains_and_of_a_named_bridge() -> None:
    mine = f.chains("here")
    assert mine != f.chains("there")
    assert all(len(name) <= 28 for name in (mine.host, mine.through))
    for rule in rules(f.raising("here", [ACME, OTHER])):
        assert re.match(rf"-A ({mine.host}|{mine.through}) -[io] sr-(acme|other)0 ", rule), rule
    assert set(rules(f.taking_down("here"))) == {f"-X {mine.host}", f"-X {mine.through}"}


@pytest.mark.parametrize("bridge", ["", "a b", "x" * 16, "$(id)", "-i", "a'b", "a;b"])
def test_a_bridge_that_is_none_is_refused(bridge: str) -> None:
    with pytest.raises(Misconfigured, match="interface"):
        f.OrgNetwork("n", bridge, ACME.subnet)


def test_a_door_is_on_its_network() -> None:
    with pytest.raises(Misconfigured, match="is not on network"):
        f.OrgNetwork("n", "br0", OTHER.subnet, ACME.doors)


INSPECTED: dict[str, Any] = {
    "Name": "sr-acme",
    "Id": "0123456789abcdef0123",
    "Options": {"com.docker.network.bridge.name": "sr-acme0"},
    "IPAM": {"Config": [{"Subnet": "10.204.0.0/26"}]},
    "Containers": {
        "a": {"Name": "nats", "IPv4Address": "10.204.0.2/26"},
        "b": {"Name": "egress", "IPv4Address": "10.204.0.3/26"},
        "c": {"Name": "session", "IPv4Address": "10.204.0.4/26"},
    },
}


def test_a_network_as_the_engine_describes_it() -> None:
    found = f.of_inspection(INSPECTED, {"nats": 4222, "egress": 3128})
    assert (found.name, found.bridge, found.subnet) == (ACME.name, ACME.bridge, ACME.subnet)
    assert set(found.doors) == set(ACME.doors)
    assert f.of_inspection({**INSPECTED, "Options": {}}, {}).bridge == "br-0123456789ab"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"Containers": {}}, "has no egress, nats in it"),
        ({"IPAM": {"Config": []}}, "has 0 IPv4 ranges"),
        ({"IPAM": {"Config": None}}, "no addresses that can be read"),
        ({"IPAM": {"Config": [{"Subnet": "10.9.0.0/26"}]}}, "is not on network"),
    ],
)
def test_a_network_that_cannot_be_fenced_is_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        f.of_inspection({**INSPECTED, **changed}, {"nats": 4222, "egress": 3128})


def asked() -> list[dict[str, Any]]:
    return p.attempts(ACME, [HOST])


def judged(outcomes: list[str], **changed: Any) -> p.FenceProof:
    given: dict[str, Any] = {"own": {"raw": "refused", "dns": "own"}, "arrivals": {"the host": 0}, "problems": ()}
    return p.judge("sr-acme", asked(), outcomes, took_s=1.0, **(given | changed))


def good() -> list[str]:
    return ["open" if each["door"] else "blocked" for each in asked()]


def test_everything_is_tried() -> None:
    tried = {(each["kind"], each["host"], each["port"]) for each in asked()}
    for address in HOST.addresses:
        assert {("tcp", address, 40000), ("udp", address, 40001), ("ping", address, 0)} <= tried
    assert {("tcp", "169.254.169.254", 80), ("udp", "8.8.8.8", 53), ("tcp", "10.204.0.1", 2375)} <= tried
    assert {("udp", "10.204.0.63", 40001), ("tcp", "10.204.0.2", 8222)} <= tried
    assert ("tcp", "10.204.0.3", 4222) in tried
    assert [each["host"] for each in asked() if each["door"]] == ["10.204.0.2", "10.204.0.3"]


def test_a_proof_is_everything_blocked_and_every_door_open() -> None:
    proof = judged(good())
    assert (proof.proven, proof.holes, proof.tried) == (True, (), len(asked()))


@pytest.mark.parametrize("outcome", ["open", "answered", "", "whatever"])
def test_whatever_is_not_blocked_is_a_hole(outcome: str) -> None:
    proof = judged([outcome, *good()[1:]])
    assert not proof.proven
    assert proof.holes == (f"the host (tcp 10.204.0.1 port 40000) is {outcome}",)


@pytest.mark.parametrize(
    ("changed", "hole"),
    [
        ({"arrivals": {"the host": 2}}, "2 packets arrived at the host"),
        ({"own": {"raw": "allowed", "dns": "own"}}, "raw packets can be made"),
        ({"own": {"raw": "refused", "dns": "answered"}}, "resolver are answered"),
        ({"own": {"raw": "refused", "dns": "unknown"}}, "resolver are unknown"),
        ({"own": {}}, "not tried"),
        ({"problems": ["network x does not exist"]}, "network x does not exist"),
    ],
)
def test_what_else_is_no_proof(changed: dict[str, Any], hole: str) -> None:
    proof = judged(good(), **changed)
    assert not proof.proven
    assert any(hole in each for each in proof.holes)


def test_a_dead_network_or_half_an_answer_proves_nothing() -> None:
    assert any("a dead network proves nothing" in hole for hole in judged(["blocked"] * len(asked())).holes)
    assert judged(good()[:-1]).holes[0].startswith("the probe answered")
    assert not judged([]).proven
