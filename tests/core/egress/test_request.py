"""What a client sends is understood in one way, and what goes on is one request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandreel_core.egress.request import read_request
from sandreel_core.errors import Malformed


def head(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def test_a_tunnel_is_its_target() -> None:
    request = read_request(
        head("CONNECT example.com:443 HTTP/1.1", "Host: other.example:443", "Proxy-Authorization: Basic eA==")
    )
    assert (str(request.target), request.tunnel, request.head) == ("example.com:443", True, b"")


def test_a_plain_request_goes_on_in_origin_form_and_without_what_is_for_the_proxy() -> None:
    request = read_request(
        head(
            *("GET http://Deb.Example/debian/?q=1#x HTTP/1.1", "Host: evil.example", "Proxy-Connection: keep-alive"),
            *(
                "Proxy-Authorization: Basic eA==",
                "Connection: close, X-Secret",
                "X-Secret: 1",
                "Upgrade: h2c",
                "Accept: */*",
            ),
        )
    )
    assert str(request.target) == "deb.example:80"
    assert request.head == head("GET /debian/?q=1 HTTP/1.1", "host: deb.example", "accept: */*", "connection: close")
    assert not request.tunnel


@pytest.mark.parametrize(
    ("line", "sent"),
    [("GET http://a.example HTTP/1.0", b"GET / HTTP/1.1"), ("GET http://a.example?x HTTP/1.1", b"GET /?x HTTP/1.1")],
)
def test_a_path_is_never_empty(line: str, sent: bytes) -> None:
    assert read_request(head(line)).head.startswith(sent + b"\r\n")


def test_a_body_is_as_long_as_it_says() -> None:
    assert read_request(head("POST http://a.example/ HTTP/1.1", "Content-Length: 12")).body_bytes == 12
    assert (
        read_request(head("POST http://a.example/ HTTP/1.1", "Content-Length: 3", "content-length: 3")).body_bytes == 3
    )


@pytest.mark.parametrize(
    "lines",
    [
        ("GET / HTTP/1.1", "Host: a.example"),
        ("GET https://a.example/ HTTP/1.1",),
        ("GET ftp://a.example/ HTTP/1.1",),
        ("get http://a.example/ HTTP/1.1",),
        ("GET http://u:p@a.example/ HTTP/1.1",),
        ("GET http://a.example/ HTTP/2.0",),
        ("GET http://a.example/ x HTTP/1.1",),
        ("CONNECT example.com HTTP/1.1",),
        ("CONNECT http://example.com:443 HTTP/1.1",),
        ("CONNECT example.com:443",),
        ("",),
        ("POST http://a.example/ HTTP/1.1", "Transfer-Encoding: chunked"),
        ("POST http://a.example/ HTTP/1.1", "Transfer-Encoding: chunked", "Content-Length: 1"),
        ("POST http://a.example/ HTTP/1.1", "Content-Length: 1", "Content-Length: 2"),
        ("POST http://a.example/ HTTP/1.1", "Content-Length: -1"),
        ("POST http://a.example/ HTTP/1.1", "Content-Length: 1, 1"),
        ("POST http://a.example/ HTTP/1.1", "Content-Length : 1"),
        ("POST http://a.example/ HTTP/1.1", "Content-Length: 1", "Connection: content-length"),
        ("GET http://a.example/ HTTP/1.1", "X: a", " folded"),
        ("GET http://a.example/ HTTP/1.1", "X: a\nY: b"),
        ("GET http://a.example/ HTTP/1.1", "X: a\rY: b"),
        ("GET http://a.example/ HTTP/1.1", "X: a\x00"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises(Malformed):
        read_request(head(*lines))


@given(
    st.binary(max_size=200), st.sampled_from([b"CONNECT ", b"GET http://", b"POST http://a.example/ HTTP/1.1\r\n", b""])
)
def test_whatever_is_sent_one_request_goes_on(data: bytes, before: bytes) -> None:
    try:
        request = read_request(before + data.replace(b"\r\n\r\n", b"") + b"\r\n\r\n")
    except Malformed:
        return
    if not request.tunnel:
        assert request.head.count(b"\r\n\r\n") == 1
        assert request.head.endswith(b"\r\n\r\n")
        lines = request.head.split(b"\r\n")
        assert not any(b"\n" in line or b"\r" in line for line in lines)
        assert sum(line.startswith(b"host:") for line in lines) == 1
