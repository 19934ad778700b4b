"""The stand-in's HTTP server: asyncio and the standard library alone."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

from tests.support.model_api import anthropic, gemini, openai
from tests.support.model_api.asked import Asked
from tests.support.model_api.dialect import Api, Json
from tests.support.model_api.script import Failure, Reply, Script, steps

_MAX_BODY_BYTES = 64 << 20
_REASONS = {200: "OK", 401: "Unauthorized", 402: "Payment Required", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that has come. `headers` by their names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    model: str | None = None
    asked: Asked | None = field(default=None, repr=False)


class ModelApi:
    """`async with ModelApi(script) as api`: serves on `api.url` while it is open.

    seen     every request, in the order in which they came; script: may be changed at any time
    tell     hears of each
    gone     how many clients left before their answer had ended
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tell: Callable[[Seen], None] = lambda seen: None,
    ) -> None:
        self.script = script or steps("Hello from the stand-in.")
        self.seen: list[Seen] = []
        self.gone = 0
        self._host, self._port = host, port
        self._tell = tell
        self._ids = itertools.count(1)
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def __aenter__(self) -> ModelApi:
        self._server = await asyncio.start_server(self._accept, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for client in list(self._clients):
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (seen := await _request(reader)) is not None:
                await self._answer(seen, reader, writer)
        except ConnectionError:
            self.gone += 1
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = seen.path.partition("?")[0]
        api = _api(path)
        try:
            body = json.loads(seen.body or b"{}")
        except ValueError:
            body = {}
        asked = api.asked(path, body) if api is not None and seen.method == "POST" else None
        noted = Seen(seen.method, seen.path, seen.headers, seen.body, asked.model if asked else None, asked)
        self.seen.append(noted)
        self._tell(noted)
        if api is None or asked is None:
            await _send_json(writer, *_other(seen.method, path))
            return
        reply = self.script(asked)
        id = f"standin{next(self._ids):05}"
        if isinstance(reply, Failure):
            headers = reply.headers or ((("retry-after", "1"),) if reply.status == 429 else ())
            await _send_json(writer, reply.status, api.failure(reply), (("request-id", f"req_{id}"), *headers))
            return
        await asyncio.sleep(reply.first_after_s)
        if reply.hang_after == 0:
            await _hang(reader, writer)
        if not asked.stream:
            await _send_json(writer, 200, api.whole(reply, asked, id), (("request-id", f"req_{id}"),))
        else:
            await _send_events(reader, writer, api.events(reply, asked, id), reply, id)


async def _send_events(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, events: Iterator[bytes], reply: Reply, id: str
) -> None:
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    writer.write(f"{head}request-id: req_{id}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
    for number, event in enumerate(events):
        if number == reply.cut_after:
            writer.transport.abort()
            raise ConnectionAbortedError
        if number == reply.hang_after:
            await _hang(reader, writer)
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        await writer.drain()
        if reply.every_s and b"delta" in event:
            await asyncio.sleep(reply.every_s)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the client leaves."""
    await writer.drain()
    while await reader.read(65536):
        pass
    raise ConnectionAbortedError


async def _send_json(
    writer: asyncio.StreamWriter, status: int, body: Json, headers: tuple[tuple[str, str], ...] = ()
) -> None:
    text = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", "content-type: application/json"]
    lines += [f"content-length: {len(text)}", *(f"{name}: {value}" for name, value in headers)]
    writer.write("\r\n".join([*lines, "", ""]).encode() + text)
    await writer.drain()


async def _request(reader: asyncio.StreamReader) -> Seen | None:
    """The next one of a connection; None at its end."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        body = await reader.readexactly(min(int(headers.get("content-length") or 0), _MAX_BODY_BYTES))
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    return Seen(method, path, headers, body)


def _api(path: str) -> Api | None:
    """By the end of the path, so that any prefix will do."""
    if path.endswith("/messages"):
        return anthropic.API
    if path.endswith("/chat/completions"):
        return openai.CHAT
    if path.endswith("/responses"):
        return openai.RESPONSES
    if path.endswith((":streamGenerateContent", ":generateContent")):
        return gemini.API
    return None


def _other(method: str, path: str) -> tuple[int, Json]:
    """What is not a model call."""
    if path.endswith("/count_tokens"):
        return 200, {"input_tokens": 1234}
    if path.endswith(":countTokens"):
        return 200, {"totalTokens": 1234}
    if path.endswith("/models"):
        models = [{"id": "stand-in", "object": "model", "type": "model", "display_name": "Stand-in", "created": 0}]
        return 200, {"object": "list", "has_more": False, "data": models, "models": []}
    if method == "HEAD":
        return 200, {}
    return 404, {"type": "error", "error": {"type": "not_found_error", "message": f"no such path {path}"}}
