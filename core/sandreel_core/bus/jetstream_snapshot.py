"""A copy of a whole stream, as the server itself takes it and puts it back (nats-server: `jetstream_api.go`).

The server sends the copy in chunks and waits for the acknowledgement of each window of them, so that neither side
holds more than that; whoever writes the stream meanwhile goes on. What the bytes are is the server's own business
(a tar in S2 today): they are put back by a server of the same or a later version.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

import msgspec

from sandreel_core.bus import jetstream_api as api
from sandreel_core.bus.jetstream_link import Link
from sandreel_core.bus.nats_py import Msg
from sandreel_core.errors import Unavailable

CHUNK_BYTES = 128 * 1024  # the server's own default; a chunk must fit its max_payload (1 MiB at least, `streams.py`)
# What the server sends before it waits: 16 chunks. More only fills a queue on this side.
WINDOW_BYTES = 16 * CHUNK_BYTES
# Before its first chunk the server checks every block's checksum, which takes some 10 s for each GiB on a slow disk.
FIRST_CHUNK_S = 300.0
# Between two chunks; the server itself gives up on a copy that is not acknowledged for 5 s.
CHUNK_S = 30.0
RESTORE_S = 300.0  # after the last chunk the server reads all of it


async def names(link: Link, timeout_s: float) -> list[str]:
    """Every stream of the account, in alphabetical order."""
    found: list[str] = []
    while True:
        answer = await api.ask(link, "STREAM.NAMES", {"offset": len(found)}, timeout_s=timeout_s)
        page = answer.get("streams") or []
        found += page
        if not page or len(found) >= answer.get("total", 0):
            return sorted(found)


async def take(link: Link, stream: str, head: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """The chunks of a copy of the stream, without its consumers; `head` is filled with `config` and `state` as of
    the copy before the first one. Close it (`aclosing`).

    Raises NotFound, Denied, and Unavailable when the copy breaks off: what has come by then is worth nothing.
    """
    inbox = link.new_inbox()
    chunks: asyncio.Queue[Msg] = asyncio.Queue()  # bounded by the window: nothing more comes before we answer

    async def on_message(message: Msg) -> None:
        chunks.put_nowait(message)

    subscription = await link.subscribe(inbox, on_message)
    try:
        await link.flush()
        wish = {
            "deliver_subject": inbox,
            "no_consumers": True,
            "chunk_size": CHUNK_BYTES,
            "window_size": WINDOW_BYTES,
            "jsck": True,
        }
        head |= await api.ask(link, f"STREAM.SNAPSHOT.{stream}", wish, timeout_s=FIRST_CHUNK_S)
        patience_s = FIRST_CHUNK_S
        while True:
            message = await _next(link, chunks, stream, patience_s)
            patience_s = CHUNK_S
            if not message.data:
                _check_end(message, stream)
                return
            yield message.data
            if message.reply:
                await link.publish(message.reply, b"")
    finally:
        await link.unsubscribe(subscription)


async def put(link: Link, stream: str, head: dict[str, Any], chunks: AsyncIterable[bytes]) -> dict[str, Any]:
    """Make the stream from a copy, with `head["config"]` as its configuration; the server's account of it.

    Nothing is there before the last chunk was taken. Raises Misconfigured when there is a stream of that name or
    the copy is not in order, Denied, Unavailable.
    """
    wish = {"config": head["config"], "state": head["state"]}
    into = (await api.ask(link, f"STREAM.RESTORE.{stream}", wish, timeout_s=CHUNK_S))["deliver_subject"]
    async for chunk in chunks:
        said = await link.request(into, chunk, timeout_s=CHUNK_S)
        if said.data:
            _decode(said.data, stream)
    answer = await link.request(into, b"", timeout_s=RESTORE_S)
    return _decode(answer.data, stream)


async def drop(link: Link, stream: str, timeout_s: float) -> None:
    """Delete the stream with all that it holds. Raises NotFound."""
    await api.ask(link, f"STREAM.DELETE.{stream}", timeout_s=timeout_s)


async def readers(link: Link, stream: str, timeout_s: float) -> list[str]:
    """The consumers of the stream on which somebody waits for messages at this moment."""
    found: list[str] = []
    seen = 0
    while True:
        answer = await api.ask(link, f"CONSUMER.LIST.{stream}", {"offset": seen}, timeout_s=timeout_s)
        page = answer.get("consumers") or []
        found += [each["name"] for each in page if each.get("num_waiting") or each.get("push_bound")]
        seen += len(page)
        if not page or seen >= answer.get("total", 0):
            return found


async def _next(link: Link, chunks: asyncio.Queue[Msg], stream: str, patience_s: float) -> Msg:
    lost = asyncio.ensure_future(link.lost.wait())
    coming = asyncio.ensure_future(chunks.get())
    try:
        await asyncio.wait((lost, coming), timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        if coming.done():
            return coming.result()
        if lost.done():
            raise Unavailable(f"the connection to NATS was lost in the middle of the copy of {stream}")
        raise Unavailable(f"the copy of {stream} stopped: nothing came for {patience_s:g} s")
    finally:
        lost.cancel()
        coming.cancel()
        await asyncio.gather(lost, coming, return_exceptions=True)


def _check_end(message: Msg, stream: str) -> None:
    """An empty message ends a copy: in order with 204 or without a status, else broken off."""
    headers = message.headers or {}
    status = headers.get("Status", "")
    if status not in ("", "204"):
        why = headers.get("Description") or f"status {status}"
        raise Unavailable(f"the server broke off the copy of {stream}: {why}")


def _decode(body: bytes, stream: str) -> dict[str, Any]:
    answer: dict[str, Any] = msgspec.json.decode(body)
    if "error" in answer:
        api.raise_error(answer["error"], f"{stream} from its copy")
    return answer
