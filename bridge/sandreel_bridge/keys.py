"""The virtual keys of turns that are about to start: each is handed to its one exec, sealed, and kept nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import msgspec

from sandreel_core.bus.port import Bus
from sandreel_core.contract.secret import AskSecret, Secret
from sandreel_core.contract.subjects import parse_request_subject
from sandreel_core.errors import Denied, Malformed, NotFound
from sandreel_core.keys import seal
from sandreel_core.log import Log

# Of several bridges one has the key, and its answer is the first. The others know nothing, and say so later.
_PATIENCE_S = 3.0
# Each of the others waits with every start of all bridges: enough for 300 starts a second, which no installation makes.
_AT_ONCE = 1024

# Whether the exec of the session may start now, by the log as it is now, and the session's sealing key if so. Raises NotFound where it
# is another bridge's to say.
Gate = Callable[[], Awaitable[str | None]]


class Keys:
    """Held in memory, by org, session and exec, from minting until the start is answered."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._held: dict[tuple[str, str, str], tuple[str, Gate]] = {}
        self._log = Log("bridge.keys")

    def hold(self, org: str, session: str, exec: str, value: str, gate: Gate) -> None:
        self._held[org, session, exec] = (value, gate)

    def holds(self, org: str, session: str, exec: str) -> bool:
        return (org, session, exec) in self._held

    def drop(self, org: str, session: str, exec: str) -> None:
        self._held.pop((org, session, exec), None)

    def open(self) -> AbstractAsyncContextManager[None]:
        """Answer runnerds while the context is open."""
        return self._bus.serve("req.bridge.*.*.secret", self._answer, at_once=_AT_ONCE)

    async def _answer(self, subject: str, body: bytes) -> bytes:
        _, org, session, _ = parse_request_subject(subject)
        try:
            ask = msgspec.json.decode(body, type=AskSecret)
        except msgspec.DecodeError as error:
            raise Malformed(f"the request is not in order: {error}") from error
        held = self._held.get((org, session, ask.exec)) if ask.lease == ask.exec else None
        try:
            if held is None:
                raise NotFound("this bridge has no such key")
            value, gate = held
            public = await gate()
        except NotFound:
            await asyncio.sleep(_PATIENCE_S)
            raise
        if public is None:
            raise Denied("the turn is not to start any more")
        self._log.info("a key was handed to its exec", org=org, session=session, exec=ask.exec)
        return msgspec.json.encode(Secret(sealed=seal(public, value.encode())))
