"""No address that is not of the public internet ever passes, in whatever way it is spelt."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandreel_core.egress.address import parse, refusal

REFUSED = [
    *("0.0.0.0", "0.255.255.255", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *(
        "127.0.0.1",
        "127.255.255.255",
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
    ),
    *("192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *(
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
    ),
    *("100::1", "2001::1", "2001:0:7f00:1::", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::"),
    *(
        "2002:808:808::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ),
    *("4000::1", "e000::1"),
]
GLOBAL = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "168.63.129.17", "223.255.255.255"]
GLOBAL_6 = ["2606:4700:4700::1111", "2a00:1450::1", "2001:200::1", "2620:4f:8000::1", "2400::1"]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_global_is_refused(text: str) -> None:
    assert refusal(ip_address(text)) is not None


@pytest.mark.parametrize("text", GLOBAL + GLOBAL_6)
def test_what_is_global_passes(text: str) -> None:
    assert refusal(ip_address(text)) is None


@given(st.ip_addresses(v=4) | st.sampled_from([ip_address(text) for text in REFUSED if ":" not in text]))
def test_no_ipv4_address_passes_that_python_calls_local(address: IPv4Address) -> None:
    """`ipaddress` is the second opinion: nothing passes that it calls private, reserved, multicast or local."""
    local = address.is_private or address.is_reserved or address.is_multicast or address.is_loopback
    if local or address.is_link_local or address.is_unspecified or not address.is_global:
        # What Python 3.11.7 still calls private although IANA says it is global.
        relics = (ip_network("192.0.0.9/32"), ip_network("192.0.0.10/32"))
        assert refusal(address) is not None or any(address in relic for relic in relics)


@given(st.ip_addresses(v=6))
def test_no_ipv6_address_passes_that_is_local_or_holds_an_ipv4_address(address: IPv6Address) -> None:
    if refusal(address) is None:
        assert address in ip_network("2000::/3")
        assert not any((address.is_private, address.is_multicast, address.is_link_local, address.is_reserved))
        assert (address.ipv4_mapped, address.sixtofour, address.teredo) == (None, None, None)


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:{}", "::{}", "64:ff9b::{}"]))
def test_an_ipv4_address_in_ipv6_clothes_is_refused(address: IPv4Address, form: str) -> None:
    assert refusal(ip_address(form.format(address))) is not None


@given(st.ip_addresses(v=4))
@example(IPv4Address("8.8.8.8"))
def test_only_the_plain_spelling_is_an_address(address: IPv4Address) -> None:
    number, parts = int(address), str(address).split(".")
    odd = [str(number), hex(number), f"0{number:o}", ".".join(hex(int(part)) for part in parts)]
    odd += [f"{parts[0]}.{number & 0xFFFFFF}", f"0{parts[0]}.{'.'.join(parts[1:])}", f"{address}.", f" {address}"]
    assert [text for text in odd if parse(text) is not None] == []
    assert parse(str(address)) == address


def test_an_operator_may_refuse_more() -> None:
    own = [ip_network("8.8.8.0/24"), ip_network("2606:4700::/32")]
    assert "also_refused" in str(refusal(ip_address("8.8.8.8"), own))
    assert refusal(ip_address("2606:4700::1"), own) is not None
    assert refusal(ip_address("8.8.4.4"), own) is None
