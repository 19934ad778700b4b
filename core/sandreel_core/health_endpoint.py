"""`/healthz` and `/metrics` of a role: one bounded answer a connection, over plain HTTP.

No web framework, because the base install has none, and nothing more is wanted than two documents: a request has
no body, an answer ends its connection, and everything that a stranger can do to it has a bound below.
"""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from sandreel_core.bus.crew import Crew
from sandreel_core.errors import Misconfigured
from sandreel_core.health import Health
from sandreel_core.log import Log
from sandreel_core.metrics import CONTENT_TYPE, Metrics

# A scraper's request has a few hundred bytes.
MAX_HEAD_BYTES = 8192
MAX_CONNECTIONS = 16
# To send a request and, again, to take the answer: Prometheus itself gives up after 10 s.
WITHIN_S = 5.0
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_REQUEST = re.compile(rb"([A-Z]{1,16}) (/[^ ]*) HTTP/1\.[01]\r\n")


@dataclass(frozen=True, slots=True)
class Answer:
    status: HTTPStatus
    type: str
    body: bytes

    def encode(self, *, head_only: bool) -> bytes:
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Type: {self.type}\r\n"
            f"Content-Length: {len(self.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (b"" if head_only else self.body)


def address(listen: str) -> tuple[str, int]:
    """(host, port) of `127.0.0.1:9400`, `[::1]:9400`. Raises Misconfigured."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise Misconfigured(f"[health] listen is {listen[:80]!r}: expected HOST:PORT, with a port of at most 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


@asynccontextmanager
async def endpoint(
    listen: str, health: Health, metrics: Metrics, *, within_s: float = WITHIN_S
) -> AsyncIterator[tuple[str, int]]:
    """Serve while the context is open; yields (host, port), with the port that the kernel chose for 0.

    Raises Misconfigured when nothing can listen there.
    """
    host, port = address(listen)
    documents: dict[bytes, Callable[[], Answer]] = {
        b"/healthz": lambda: _health(health),
        b"/metrics": lambda: Answer(HTTPStatus.OK, CONTENT_TYPE, metrics.render().encode()),
    }
    log = Log("health")
    serving = True
    async with Crew() as crew:

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if serving and len(crew) < MAX_CONNECTIONS:
                crew.start(_serve(reader, writer, documents, log, within_s))
            else:
                writer.transport.abort()  # an answer would have to be waited for as well

        try:
            # `limit` bounds what is kept of a request that does not end.
            server = await asyncio.start_server(accept, host, port, limit=MAX_HEAD_BYTES, backlog=MAX_CONNECTIONS)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "is taken by another program" if taken else f"cannot be used ({(error.strerror or 'error').lower()})"
            raise Misconfigured(f"[health] listen: {listen} {why}; give it another, or leave it out") from error
        try:
            yield server.sockets[0].getsockname()[:2]
        finally:
            serving = False
            server.close()


async def _serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    documents: dict[bytes, Callable[[], Answer]],
    log: Log,
    within_s: float,
) -> None:
    try:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(within_s):
                answer, head_only = _answer(await _head(reader), documents, log)
                writer.write(answer.encode(head_only=head_only))
                await writer.drain()
                writer.write_eof()
                # What comes on top is taken and thrown away: closing with it unread would reset the connection, and
                # whoever asked could lose the answer.
                while await reader.read(MAX_HEAD_BYTES):
                    pass
    finally:
        writer.transport.abort()  # nothing of it outlives its time


async def _head(reader: asyncio.StreamReader) -> bytes | None:
    """The request line and the header lines; None for one that is longer than the bound."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return None


def _answer(head: bytes | None, documents: dict[bytes, Callable[[], Answer]], log: Log) -> tuple[Answer, bool]:
    if head is None:
        return _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the limit is {MAX_HEAD_BYTES} bytes"), False
    request = _REQUEST.match(head)
    if request is None:
        return _plain(HTTPStatus.BAD_REQUEST, "expected an HTTP/1.1 request"), False
    method, path = request[1], request[2].partition(b"?")[0]
    if method not in (b"GET", b"HEAD"):
        return _plain(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD"), False
    document = documents.get(path)
    if document is None:
        return _plain(HTTPStatus.NOT_FOUND, "there are /healthz and /metrics"), method == b"HEAD"
    try:
        return document(), method == b"HEAD"
    except Exception:  # a wrong number must not end the role that it is about
        log.exception("a document could not be made", path=path.decode())
        return _plain(HTTPStatus.INTERNAL_SERVER_ERROR, "the log says why"), method == b"HEAD"


def _health(health: Health) -> Answer:
    report = health.report()
    # Degraded is 200: it goes on, and nobody should restart it for what another server lacks.
    status = HTTPStatus.SERVICE_UNAVAILABLE if report.status == "failing" else HTTPStatus.OK
    return Answer(status, _JSON, msgspec.json.encode(report) + b"\n")


def _plain(status: HTTPStatus, text: str) -> Answer:
    return Answer(status, _TEXT, f"{text}\n".encode())
