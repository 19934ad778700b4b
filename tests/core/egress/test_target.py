"""Where a request goes is read in one way, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandreel_core.egress.address import parse
from sandreel_core.egress.target import read_target
from sandreel_core.errors import Malformed

ODD = [
    *("", ":443", "example.com", "example.com:", "example.com:0", "example.com:65536", "example.com:٤٤٣", "a:1:2"),
    *("example.com:+443", "example.com: 443", "exa mple.com:443", "example..com:443", ".example.com:443", "-a.com:443"),
    *("a-.com:443", "b" * 64 + ".com:443", "a." * 127 + "com:443", "exämple.com:443", "example.com..:443", "a/b:443"),
    *("127.1:443", "0x7f.0.0.1:443", "0x7f000001:443", "2130706433:443", "017700000001:443", "127.0.0.01:443"),
    *("1.2.3.4.5:443", "256.1.1.1:443", "example.0x1f:443", "example.1:443", "example.com.09:443"),
    *(
        "[::1:443",
        "[]:443",
        "[127.0.0.1]:443",
        "[::1]443",
        "[fe80::1%eth0]:443",
        "::1:443",
        "[::1%25lo]:443",
        "[v1.x]:443",
    ),
    *(
        "user@example.com:443",
        "example.com\x00:443",
        "example.com\r\n:443",
        "*.example.com:443",
        "\uff11\uff12\uff17.0.0.1:443",
    ),
]


@pytest.mark.parametrize("text", ODD)
def test_what_could_be_read_otherwise_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        read_target(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("Example.COM:443", "example.com", 443),
        ("example.com.:443", "example.com", 443),
        ("xn--exmple-cua.com:443", "xn--exmple-cua.com", 443),
        ("_acme.a-b.example:80", "_acme.a-b.example", 80),
        ("1.1.1.1:443", "1.1.1.1", 443),
        ("1.1.1.1.:443", "1.1.1.1", 443),
        ("[2606:4700:0:0::1111]:443", "2606:4700::1111", 443),
        ("1e100.net:443", "1e100.net", 443),
    ],
)
def test_what_is_clear_is_taken(text: str, host: str, port: int) -> None:
    target = read_target(text)
    assert (target.host, target.port, target.address) == (host, port, parse(host))
    assert read_target(str(target)) == target


@given(st.text(max_size=40) | st.from_regex(r"[0-9a-fx.\[\]:%-]{1,40}", fullmatch=True))
def test_whatever_is_sent_it_is_a_target_or_malformed(text: str) -> None:
    try:
        target = read_target(text, 443)
    except Malformed:
        return
    assert 0 < target.port <= 65535
    assert target.host == target.host.lower()
    # A name that a resolver could take for a number is either an address or none at all.
    assert target.address is not None or not target.host.rsplit(".", 1)[-1].isdecimal()


def test_the_default_port_is_for_plain_requests() -> None:
    assert read_target("example.com", 80).port == 80
    assert read_target("[2606::1]", 80).port == 80
