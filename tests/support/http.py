"""A plain HTTP/1.1 client for tests of servers: it shows the bytes of a body as they came, and how a reply ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Response:
    """`body`: what has come of it; `complete`: whether it came to its end."""

    status: int
    headers: dict[str, str]
    reader: asyncio.StreamReader = field(repr=False)
    body: bytes = b""
    complete: bool = False

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Of the body, as they come. Ends where the reply ends or the connection breaks: `complete` says which."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                    piece = (await self.reader.readexactly(size + 2))[:-2]
                    self.body += piece
                    yield piece
                await self.reader.readuntil(b"\r\n")
            elif "content-length" in self.headers:
                piece = await self.reader.readexactly(int(self.headers["content-length"]))
                self.body += piece
                yield piece
            else:
                while piece := await self.reader.read(65536):
                    self.body += piece
                    yield piece
            self.complete = True

    async def read(self) -> Response:
        async for _ in self.pieces():
            pass
        return self

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@asynccontextmanager
async def opened(
    url: str, *, method: str = "POST", headers: Mapping[str, str] | None = None, body: object = None
) -> AsyncGenerator[Response, None]:
    """One request on a connection of its own, which ends with the context: a `body` that is no bytes goes as JSON."""
    parts = urlsplit(url)
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 20)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        sent = {"host": f"{parts.hostname}:{parts.port}", "content-length": str(len(content))} | dict(headers or {})
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + content)
        await writer.drain()
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        named = (line.partition(":") for line in lines if line)
        yield Response(int(first.split()[1]), {name.lower(): value.strip() for name, _, value in named}, reader)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def call(
    url: str, *, method: str = "POST", headers: Mapping[str, str] | None = None, body: object = None
) -> Response:
    """The whole answer."""
    async with opened(url, method=method, headers=headers, body=body) as response:
        return await response.read()
