"""The head of what a client sends to the proxy: CONNECT, or a request in absolute form for plain HTTP. Pure.

Only what is needed to know the destination is understood; what could be understood in two ways is refused (RFC 9112).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sandreel_core.egress.target import Target, read_target
from sandreel_core.errors import Malformed

HTTPS_PORT = 443
HTTP_PORT = 80
_LINE = re.compile(r"([A-Z]{1,20}) ([\x21-\x7e]+) HTTP/1\.[01]\Z")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*\Z")
_LENGTH = re.compile(r"[0-9]{1,18}\Z")
# RFC 9110 7.6.1: what is between two neighbours and goes no further; and what is for the proxy.
_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. `head` is what the far side gets of a plain request, `body_bytes` what follows it.

    `tunnel`: CONNECT, whose bytes are nobody's business
    """

    target: Target
    tunnel: bool
    head: bytes = b""
    body_bytes: int = 0


def read_request(head: bytes) -> Request:
    """`head` up to and with the empty line. Raises Malformed with a sentence for whoever sent it."""
    lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    line = _LINE.match(lines[0])
    if line is None:
        raise Malformed("expected CONNECT HOST:PORT HTTP/1.1")
    fields = [_field(text) for text in lines[1:]]
    if line[1] == "CONNECT":
        return Request(read_target(line[2]), tunnel=True)
    if not line[2].lower().startswith("http://"):
        raise Malformed("expected CONNECT, or a request in absolute form: METHOD http://HOST/PATH")
    authority, path = _parts(line[2][len("http://") :])
    return _plain(line[1], read_target(authority, HTTP_PORT), path, fields)


def _plain(method: str, target: Target, path: str, fields: list[tuple[str, str]]) -> Request:
    body_bytes = _body_bytes(fields)
    named = {token.strip().lower() for name, value in fields if name == "connection" for token in value.split(",")}
    host = str(target).removesuffix(f":{HTTP_PORT}")
    kept = [(name, value) for name, value in fields if name not in _HOP and name not in named and name != "host"]
    # One request a connection: a second one might be for another host, which nobody has decided on.
    out = [f"{method} {path} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in kept)]
    if "content-length" in named and body_bytes:
        raise Malformed("Connection must not name Content-Length")
    head = "\r\n".join([*out, "connection: close", "", ""]).encode("latin-1")
    return Request(target, tunnel=False, head=head, body_bytes=body_bytes)


def _body_bytes(fields: list[tuple[str, str]]) -> int:
    if any(name == "transfer-encoding" for name, _ in fields):
        raise Malformed("a request without TLS needs a Content-Length: Transfer-Encoding is not read here")
    lengths = {value for name, value in fields if name == "content-length"}
    if not lengths:
        return 0
    value = lengths.pop()
    if lengths or not _LENGTH.match(value):
        raise Malformed("Content-Length is not one number")
    return int(value)


def _parts(rest: str) -> tuple[str, str]:
    """(authority, path with query); what stands behind a # is never sent."""
    cut = next((i for i, letter in enumerate(rest) if letter in "/?#"), len(rest))
    path = rest[cut:].partition("#")[0]
    if "@" in rest[:cut]:
        raise Malformed("a user in an address is not passed on")
    return rest[:cut], path if path.startswith("/") else f"/{path}"


def _field(text: str) -> tuple[str, str]:
    field = _FIELD.match(text)
    if field is None:
        raise Malformed("a header line is not NAME: VALUE")
    return field[1].lower(), field[2]
