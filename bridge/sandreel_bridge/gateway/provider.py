"""The connections to the providers: with their keys, and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from types import TracebackType
from urllib.parse import urlsplit

from aiohttp import (
    ClientConnectorError,
    ClientHttpProxyError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    TCPConnector,
    web,
)
from multidict import CIMultiDict
from yarl import URL

from sandreel_bridge.gateway import passing
from sandreel_bridge.gateway.dialect import Route
from sandreel_bridge.gateway.port import Dialect
from sandreel_bridge.gateway.settings import Settings
from sandreel_bridge.gateway.silence import Silence

# Of a reply, read ahead of the sandbox that takes it.
_AHEAD_BYTES = 256 * 1024
_KEEP_ALIVE_S = 60.0
# Of a reply that is passed on in one piece: an error, a count of tokens.
_MAX_SHORT_BYTES = 256 * 1024
# There was no connection, so the provider has had nothing of the request.
NOT_SENT = (ClientConnectorError, ConnectionTimeoutError, ClientHttpProxyError)


class Reply:
    """Of a provider: its head, and its body as it comes."""

    def __init__(self, response: ClientResponse, silence: Silence) -> None:
        self.status = response.status
        self.headers = response.headers
        self._content = response.content
        self._silence = silence

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body's bytes, in whatever pieces they come."""
        while piece := await self._content.readany():
            self._silence.rest()
            yield piece
            self._silence.listen()

    async def short(self) -> bytes | None:
        """The whole body; None for one that is longer than such a reply is."""
        body = bytearray()
        async for piece in self.pieces():
            body += piece
            if len(body) > _MAX_SHORT_BYTES:
                return None
        return bytes(body)


class Providers:
    """`async with`. Its connections are kept for the next call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys = settings.keys
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Providers:
        settings = self._settings
        local = all(_is_loopback(settings.url(provider)) for provider in self._keys)
        self._session = ClientSession(
            connector=TCPConnector(limit=settings.max_calls, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=ClientTimeout(total=None, sock_connect=settings.connect_timeout_s),
            auto_decompress=False,
            cookie_jar=DummyCookieJar(),
            read_bufsize=_AHEAD_BYTES,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            # The machine's own way out (HTTPS_PROXY), where it has one.
            trust_env=not local,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def ask(self, way: Route, request: web.BaseRequest, body: bytes) -> AsyncGenerator[Reply, None]:
        """The provider's reply, whose body is not read yet. Raises what aiohttp raises, and TimeoutError for a silence of
        `idle_timeout_s`."""
        assert self._session is not None  # noqa: S101 - used within its context
        key = self._keys[way.provider]
        url = URL(self._settings.url(way.provider) + way.path, encoded=True)
        headers = CIMultiDict(passing.sent(request.headers.items(), way.provider, key))
        async with (
            Silence(self._settings.idle_timeout_s) as silence,
            self._session.post(url, data=body, headers=headers, allow_redirects=False) as reply,
        ):
            yield Reply(reply, silence)

    def without_key(self, provider: Dialect, body: bytes) -> bytes:
        """An error's text, in which a provider may say the key that it was given."""
        return body.replace(self._keys[provider].encode(), b"[key]")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
