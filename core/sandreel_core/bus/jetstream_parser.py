"""nats-py's parser, with a short way for those of whom many messages come: the readers of streams.

For each message nats-py matches an expression, builds an object, puts that into a queue and wakes a task: two thirds of what
it costs to read a log. A subscription with a *tap* is told by one call instead, in the order of the wire. All other
messages, and every line that is no message, go through nats-py as before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandreel_core.bus.nats_py import Client, parser

# (subject, reply, headers, body)
Tap = Callable[[str, str, dict[str, str], bytes], None]

_CRLF = b"\r\n"
_USED = ("_process_msg", "_process_headers")


class Parser(parser.Parser):
    """`taps` by the number of their subscription."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.taps: dict[int, Tap] = {}
        # Pieces of what has come and was not parsed, and their size.
        self._pieces: list[bytes] = []
        self._size = 0
        # Of a size that a message has to reach before it is worth looking at again.
        self._wanted = 0

    @classmethod
    def of(cls, client: Client) -> Parser | None:
        """Put into the place of the client's own, before it connects; None where nats-py is of a version that keeps
        its parser elsewhere: then nobody taps, and all is only slower."""
        if type(getattr(client, "_ps", None)) is not parser.Parser or not all(hasattr(client, name) for name in _USED):
            return None
        client._ps = made = cls(client)
        return made

    def reset(self) -> None:
        super().reset()
        self._pieces, self._size, self._wanted = [], 0, 0

    async def parse(self, data: bytes = b"") -> None:
        """Raises what nats-py's does: ProtocolError for what is no line of the protocol."""
        pieces = self._pieces
        pieces.append(bytes(data))
        self._size += len(data)
        if self._size < self._wanted:
            return
        # Bytes, of which a piece is one copy; of a bytearray it would be two.
        held, at = b"".join(pieces) if len(pieces) > 1 else pieces[0], 0
        self._wanted = 0
        try:
            while (end := held.find(_CRLF, at)) >= 0:
                line = held[at:end]
                words = line.split()
                kind, behind = words[0] if words else b"", end + 2
                if kind not in (b"MSG", b"HMSG"):
                    at = behind
                    await super().parse(line + _CRLF)
                    continue
                # MSG <subject> <sid> [reply] <size>; HMSG has the size of its headers before that of all.
                most = 6 if kind == b"HMSG" else 5
                if not most - 1 <= len(words) <= most:
                    raise ValueError(f"{len(words)} words")
                sid, size = int(words[2]), int(words[-1])
                if len(held) < behind + size + 2:
                    self._wanted = behind + size + 2 - at
                    return
                at, body_at, headers = behind + size + 2, behind, b""
                if kind == b"HMSG":
                    body_at = behind + int(words[-2])
                    headers = held[behind:body_at]
                body = held[body_at : behind + size]
                reply = words[3] if len(words) == most else b""
                tap = self.taps.get(sid)
                if tap is None:
                    await self.nc._process_msg(sid, words[1], reply, body, headers or None)
                    continue
                said: Any = await self.nc._process_headers(headers) if headers else None
                tap(words[1].decode(), reply.decode(), said or {}, body)
        except (ValueError, IndexError) as error:
            raise parser.ErrProtocol(f"nats: malformed message: {error}") from error
        finally:
            if self._pieces is pieces:  # else what is left belongs to a connection that is over (`reset`)
                rest = held[at:]
                self._pieces, self._size = [rest] if rest else [], len(rest)
