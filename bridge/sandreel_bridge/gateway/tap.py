"""Reads a reply as it passes by, for what it says of its usage. Pure.

It is told the same bytes that the client gets, in whatever pieces they come, and changes none. Only lines that can hold a count
are decoded. What is kept is bounded: a line or a document that is longer is not read, and then the usage is not known.
"""

from __future__ import annotations

import re

from sandreel_bridge.gateway.call import BYTES_A_TOKEN
from sandreel_bridge.gateway.dialect import Api
from sandreel_bridge.gateway.told import Told

# A line of a stream, or a reply in one piece: the longest of either that is read.
MAX_KEPT_BYTES = 32 << 20
# Of an Anthropic stream, beside what the model says: around each piece (the longest is 130, with some blanks behind it), and its first event.
_AROUND_BYTES, _FIRST_BYTES = 140, 700
# What a line must hold to be worth decoding.
_TELLING: dict[Api, re.Pattern[bytes]] = {
    "messages": re.compile(rb'"(?:usage|message_stop)"'),
    "chat": re.compile(rb'"usage"|\[DONE\]'),
    "responses": re.compile(rb'"response\.(?:completed|incomplete|failed)"'),
    "gemini": re.compile(rb'"usageMetadata"'),
}


class Tap:
    """Of one reply. `told`: what it has said so far; `pieces`: events of a stream so far."""

    def __init__(self, api: Api, *, streams: bool) -> None:
        self.told = Told(api)
        self.pieces = 0
        self._bytes = 0
        self._in_order = False
        self._api = api
        self._streams = streams
        self._tells = _TELLING[api].search
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._skipping = False

    def feed(self, data: bytes) -> None:
        """The next bytes of the body."""
        self._bytes += len(data)
        if not self._streams:
            self._keep(data)
            return
        end = data.rfind(b"\n")
        if end < 0:
            self._keep(data)
            return
        head = data[: end + 1]
        if self._skipping:  # the rest of a line that was too long
            head = head[head.find(b"\n") + 1 :]
        if self._kept or self._skipping:
            head = self._taken() + head
        if self._tells(head) is None:  # nearly all that comes
            self.pieces += head.startswith(b"data:") + head.count(b"\ndata:")
        else:
            for line in head.split(b"\n"):
                if line.startswith(b"data:"):
                    self.pieces += 1
                    if self._tells(line) is not None:
                        self.told.line(line[5:].strip())
        if end + 1 < len(data):
            self._keep(data[end + 1 :])

    @property
    def least_output(self) -> int:
        """Tokens that have come at least, where the reply did not tell: of a stream that was cut one a piece, and of Anthropic's, whose
        pieces have several and little around them, by their length. By its length in all else: a reply in one piece, and a stream that
        has ended without the API's own words."""
        if self._streams and not (self._in_order and self.told.tokens is None):
            said = self._bytes - _FIRST_BYTES - self.pieces * _AROUND_BYTES if self._api == "messages" else 0
            return max(self.pieces, said // BYTES_A_TOKEN)
        return self._bytes // BYTES_A_TOKEN

    def end(self, *, in_order: bool = False) -> None:
        """No more comes; `in_order`: by the provider's own will. Of a reply in one piece only now something is known."""
        self._in_order = self._in_order or in_order
        body = self._taken()
        if self._streams:
            if body.startswith(b"data:"):  # a last line without its end
                self.told.line(body[5:].strip())
        elif body:
            self.told.whole(body)

    def _keep(self, data: bytes) -> None:
        if self._skipping:
            return
        self._kept_bytes += len(data)
        if self._kept_bytes > MAX_KEPT_BYTES:
            self._kept, self._kept_bytes, self._skipping = [], 0, True
        else:
            self._kept.append(data)

    def _taken(self) -> bytes:
        """What was kept; nothing if it grew too long."""
        taken = b"".join(self._kept)
        self._kept, self._kept_bytes, self._skipping = [], 0, False
        return taken
