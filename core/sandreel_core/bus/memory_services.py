"""Request and reply of the memory twin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from sandreel_core.bus import failure
from sandreel_core.bus.crew import Crew
from sandreel_core.bus.port import Handler
from sandreel_core.contract.subjects import matches
from sandreel_core.errors import TooLarge, Unavailable, Unserved
from sandreel_core.log import Log


class Peer(Protocol):
    """The connection that serves."""

    @property
    def connected(self) -> bool: ...

    @property
    def max_payload(self) -> int: ...


@dataclass(eq=False)
class _Service:
    subject: str
    group: str
    handler: Handler
    crew: Crew
    slots: asyncio.Semaphore
    peer: Peer


class MemoryServices:
    """Who serves which subject, on all connections of one server."""

    def __init__(self) -> None:
        self._services: list[_Service] = []
        self._log = Log("bus.memory")

    async def request(self, subject: str, body: bytes, *, timeout_s: float) -> bytes:
        """The first answer of one service of each group. Raises Unserved, Unavailable, and what the handler raised."""
        services = [each for each in self._services if each.peer.connected and matches(each.subject, subject)]
        if not services:
            raise Unserved(f"nobody serves {subject}")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        groups: set[str] = set()
        for service in services:
            if service.group and service.group in groups:
                continue
            groups.add(service.group)
            service.crew.start(self._answer(service, subject, body, answer))
        try:
            async with asyncio.timeout(timeout_s):
                return failure.check_answer(await answer)
        except TimeoutError as error:
            raise Unavailable(f"no answer on {subject} within {timeout_s:g} s") from error

    async def _answer(self, service: _Service, subject: str, body: bytes, answer: asyncio.Future[bytes]) -> None:
        async with service.slots:
            said = await failure.answer(service.handler, subject, body, self._log)
        limit = service.peer.max_payload
        if len(said) > limit:
            said = failure.encode_failure(TooLarge(f"{len(said)} bytes are over the server's limit of {limit}"))
        if not answer.done() and service.peer.connected:
            answer.set_result(said)

    @asynccontextmanager
    async def serve(
        self, peer: Peer, subject: str, handler: Handler, *, group: str, at_once: int
    ) -> AsyncIterator[None]:
        async with Crew() as crew:
            service = _Service(subject, group, handler, crew, asyncio.Semaphore(at_once), peer)
            self._services.append(service)
            try:
                yield
            finally:
                self._services.remove(service)
