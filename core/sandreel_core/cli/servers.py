"""The servers that the stack runs itself, NATS and Postgres, and whether they answer: they have no `/healthz`."""

from __future__ import annotations

import argparse
import asyncio
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandreel_core.cli.connection import data_of

if TYPE_CHECKING:
    from sandreel_core.embedded.roster import Entry

_WITHIN_S = 3.0
# PostgreSQL's protocol, "SSLRequest": whatever its settings, a server answers one byte to it before anybody logs in.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@dataclass(frozen=True, slots=True)
class Server:
    """`problem` is empty for one that answers. `up_s`: since it became ready."""

    name: str
    listen: str
    pid: int | None
    up_s: float
    problem: str = ""


async def servers(args: argparse.Namespace) -> list[Server]:
    """Those of the stack that runs; none where none does, or for those that are not its own."""
    from sandreel_core.embedded import roster
    from sandreel_core.embedded.place import Place, holder
    from sandreel_core.embedded.stack import NATS, POSTGRES

    data = data_of(args)
    heard = roster.read(Place(data).parts) if holder(data) is not None else {}
    known = {NATS: _nats, POSTGRES: _postgres}
    return list(await asyncio.gather(*(_look(name, heard[name], known[name]) for name in known if name in heard)))


async def _look(name: str, entry: Entry, answers: Callable[[int], Awaitable[bool]]) -> Server:
    from sandreel_core.embedded.roster import why_down
    from sandreel_core.health_endpoint import address

    up_s = time.time() - entry.since_ms / 1000
    if entry.state != "ready":
        return Server(name, "", entry.pid, up_s, why_down(entry))
    _, port = address(entry.detail)
    well = await answers(port)
    return Server(name, entry.detail, entry.pid, up_s, "" if well else f"{entry.detail} does not answer in order")


async def _nats(port: int) -> bool:
    from sandreel_core.embedded.nats import greets

    return await greets(port)


async def _postgres(port: int) -> bool:
    try:
        async with asyncio.timeout(_WITHIN_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(_SSL_REQUEST)
                return await reader.read(1) in (b"S", b"N")
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError):
        return False
