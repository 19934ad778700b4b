"""Lists of hosts: what each pattern means, and how three lists make one answer."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandreel_core.egress import rules as r
from sandreel_core.egress.target import read_target
from sandreel_core.errors import Malformed

NAMES = st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5}){0,3}", fullmatch=True)


def of(*patterns: str) -> r.Allowlist:
    return r.allowlist(patterns)


def test_a_name_is_that_name_alone_and_a_star_is_what_is_below() -> None:
    found = of("Example.com.", "*.github.com", "1.1.1.1", "[2606:4700:0::1]")
    assert [found.allows(host) for host in ("example.com", "a.example.com", "notexample.com")] == [True, False, False]
    assert [found.allows(host) for host in ("api.github.com", "a.b.github.com")] == [True, True]
    assert [found.allows(host) for host in ("github.com", "evilgithub.com", "github.com.evil.net")] == [False] * 3
    assert [found.allows(host) for host in ("1.1.1.1", "2606:4700::1", "1.1.1.2")] == [True, True, False]


@pytest.mark.parametrize(
    "pattern", ["", "*.", "*.*.com", "a*.com", "**", "a b", "https://a.com", "a.com:443", "127.1", "1.2.3"]
)
def test_what_is_no_pattern_is_named(pattern: str) -> None:
    with pytest.raises(Malformed, match="pattern"):
        of(pattern)


@given(NAMES, NAMES)
def test_a_pattern_below_a_name_has_exactly_what_ends_with_it(base: str, host: str) -> None:
    assert of(f"*.{base}").allows(host) is host.endswith(f".{base}")
    assert of(f"*.{base}").allows(f"{host}.{base}")


def test_every_list_that_there_is_must_have_the_host() -> None:
    target = read_target("api.example.com:443")
    everybody, org, session = r.Scope(), r.Scope("acme"), r.Scope("acme", "s1")
    yes, no = of("*.example.com"), of("other.org")

    def asked(lists: dict[r.Scope, r.Allowlist]) -> r.Scope | None:
        return r.refused_by(lists, "acme", "s1", target)

    assert asked({}) is None
    assert asked({everybody: yes, org: yes, session: yes}) is None
    assert asked({everybody: no, org: yes, session: yes}) == everybody
    assert asked({org: no, session: of("*")}) == org, "a session's list cannot widen its org's"
    assert asked({org: of("*"), session: r.NOTHING}) == session
    assert asked({r.Scope("other"): no, r.Scope("acme", "s2"): no}) is None


def test_a_document_is_a_list_or_none_or_malformed() -> None:
    assert r.read_document(b"{}") is None
    assert r.read_document(b'{"allow": []}') == r.NOTHING
    for body in (b"", b"[]", b'{"alow": []}', b'{"allow": "a"}', b'{"allow": ["a b"]}', b"\xff"):
        with pytest.raises(Malformed):
            r.read_document(body)
    many = msgspec.json.encode({"allow": [f"h{i}.example" for i in range(r.MAX_PATTERNS + 1)]})
    with pytest.raises(Malformed):
        r.read_document(many)
    with pytest.raises(Malformed, match="limit"):
        r.read_document(b" " * (r.MAX_RULES_BYTES + 1))
