"""The HTTP server that sandboxes connect to. It bounds who may be connected: requests have bounds of their own (`room`), and a sandbox
that only connects, or begins a request and does not go on, would take the descriptors of all others.

This, `proxy.py` and `provider.py` are the files that know aiohttp.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from sandreel_bridge.gateway.measures import GatewayMeasures
from sandreel_bridge.gateway.settings import Settings
from sandreel_core.descriptors import make_room

# How long a connection may wait for its first request to have come that far that it can be judged, and for its next one.
_KEEP_ALIVE_S = 75.0
_SHUTDOWN_S = 0.5
# Beside connections: the log, NATS, the daybook, the orgs' file.
_SPARE_FILES = 64

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _Server(web.Server):
    """Connections beyond the bounds are closed as they come: whoever made them sees no answer, and the others go on."""

    def __init__(self, handler: Handler, settings: Settings, measures: GatewayMeasures, **options: Any) -> None:
        super().__init__(handler, request_factory=self._request, **options)
        self._settings = settings
        self._measures = measures
        self._connected: Counter[str] = Counter()
        self._hosts: dict[web.RequestHandler, str] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        host = self._hosts[handler] = transport.get_extra_info("peername")[0]
        self._connected[host] += 1
        # On loopback all sandboxes of the machine have one address.
        many = self._connected[host] > self._settings.max_connections_per_address and not ip_address(host).is_loopback
        if many or len(self._hosts) > self._settings.max_connections:
            self._measures.turned_away.add()
            transport.abort()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        host = self._hosts.pop(handler)
        self._connected[host] -= 1
        if not self._connected[host]:
            del self._connected[host]

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        limit = self._settings.max_body_bytes
        return web.BaseRequest(
            message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=limit
        )


def front(
    handler: Handler, settings: Settings, measures: GatewayMeasures, *, keep_alive_s: float = _KEEP_ALIVE_S
) -> web.ServerRunner:
    """Not listening yet: see `opener`. Raises Misconfigured where this process may not have so many connections."""
    make_room(settings.max_connections + settings.max_calls + _SPARE_FILES, "[gateway] max_connections (and max_calls)")
    server = _Server(
        handler,
        settings,
        measures,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=keep_alive_s,
        logger=_http_log(measures),
    )
    return web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_S)


async def invite(request: web.BaseRequest) -> None:
    """To send its body, for a program that waits to be told (RFC 9110 §10.1.1)."""
    if request.headers.get("expect", "").lower() == "100-continue" and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # what is counted there is the reply's


def opener(runner: web.ServerRunner) -> Callable[[str, int], Awaitable[Callable[[], Awaitable[None]]]]:
    """What listens on a host and port, and gives what ends that. Raises OSError."""

    async def open(host: str, port: int) -> Callable[[], Awaitable[None]]:
        site = web.TCPSite(runner, host, port)
        await site.start()
        return site.stop

    return open


def _http_log(measures: GatewayMeasures) -> logging.Logger:
    """What aiohttp logs of the server. A request that is none is counted and not logged: whoever reaches the port can send any
    number of them, and what it sends, a key in it, would stand in the log."""

    def passes(record: logging.LogRecord) -> bool:
        refused = record.exc_info is not None and isinstance(record.exc_info[1], HttpProcessingError)
        if refused:
            measures.refused.add("400")
        return not refused

    log = logging.Logger("sandreel.gateway.http")
    log.parent = logging.getLogger("sandreel.gateway")
    log.addFilter(passes)
    return log
