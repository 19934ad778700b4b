"""The short way of what many messages come of: the same messages as nats-py's own parser hands out, in the same order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.errors import ProtocolError
from nats.protocol import parser as theirs

from sandreel_core.bus.credentials import Password
from sandreel_core.bus.jetstream_link import Link
from sandreel_core.bus.jetstream_parser import Parser

TAPPED, OTHER = 7, 8
_STATUS = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 5\r\n\r\n"
_HEADERS = b"NATS/1.0\r\nA: b\r\n\r\n"


class Told:
    """What a client is told by its parser."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self._client = Client()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        said = await self._client._process_headers(headers) if headers else None
        self.said.append((sid, subject.decode(), reply.decode(), said or {}, data))

    async def _process_headers(self, headers: bytes) -> Any:
        return await self._client._process_headers(headers)

    async def _process_ping(self) -> None:
        self.said.append(("ping",))

    async def _process_pong(self) -> None:
        self.said.append(("pong",))

    async def _process_err(self, error: str) -> None:
        self.said.append(("error", error))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.said.append(("info", info))


def message(sid: int, body: bytes, *, reply: bytes = b"", headers: bytes = b"") -> bytes:
    words = [b"HMSG" if headers else b"MSG", b"evt.0.a", b"%d" % sid, *([reply] if reply else [])]
    words += [b"%d" % len(headers)] if headers else []
    return b" ".join([*words, b"%d" % (len(headers) + len(body))]) + b"\r\n" + headers + body + b"\r\n"


messages = st.builds(
    message,
    st.sampled_from([TAPPED, OTHER]),
    # Also what looks like the protocol, and what takes many reads.
    st.one_of(st.binary(max_size=40), st.sampled_from([b"\r\nMSG x 7 3\r\nabc\r\n", b"\r", b"PING\r\n", b"x" * 5000])),
    reply=st.sampled_from([b"", b"$JS.ACK.S.c.1.2.3.4.5"]),
    headers=st.sampled_from([b"", _STATUS, _HEADERS]),
)
lines = st.sampled_from(
    [b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Permissions Violation'\r\n", b'INFO {"a":1}\r\n']
)


@settings(deadline=None)
@given(wire=st.lists(st.one_of(messages, messages, lines), max_size=12).map(b"".join), data=st.data())
async def test_in_any_chunking_the_same_is_told(wire: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    chunks = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    ours, reference = Told(), Told()
    parser, own = Parser(ours), theirs.Parser(reference)  # type: ignore[arg-type]
    parser.taps[TAPPED] = lambda subject, reply, headers, body: ours.said.append(
        (TAPPED, subject, reply, headers, body)
    )
    for chunk in chunks:
        await parser.parse(chunk)
        await own.parse(chunk)
        assert ours.said == reference.said
    assert not parser._pieces


@pytest.mark.parametrize("line", [b"HELLO\r\n", b"MSG a 7\r\n", b"MSG a b 3\r\nabc\r\n", b"\r\n"])
async def test_what_is_no_protocol_ends_the_connection(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        await Parser(Told()).parse(message(OTHER, b"x") + line)  # type: ignore[arg-type]


def test_the_nats_py_that_is_installed_takes_it() -> None:
    """Another version may keep its parser elsewhere: then nobody taps, and this says so."""
    client = Client()
    parser = Parser.of(client)
    assert parser is not None
    assert client._ps is parser
    client._ps = None  # type: ignore[assignment]
    assert Parser.of(client) is None
    assert Link(client, 1, Password()).new_inbox()
