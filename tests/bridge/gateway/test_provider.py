"""The built-in gateway before providers that behave badly: what the sandbox is told, and what is charged."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from tests.support.gateway import gateway
from tests.support.http import call, opened
from tests.support.model_api import ModelApi

BODY = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}


@asynccontextmanager
async def provider(head: str, *pieces: bytes) -> AsyncGenerator[str, None]:
    """Answers every request with these bytes, each piece when the one before has surely been read, and closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            asked = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(asked.partition("content-length:")[2].split()[0]))
            writer.write(f"HTTP/1.1 {head}\r\nconnection: close\r\n\r\n".encode())
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with asyncio.TaskGroup() as answers:
        server = await asyncio.start_server(lambda *ends: answers.create_task(answer(*ends)), "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def full_house() -> AsyncGenerator[str, None]:
    """An address at which nobody takes connections: the kernel has as many waiting as it keeps."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as busy:
        where = busy.getsockname()
        waiting = [socket.socket() for _ in range(2)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(where)
        yield f"http://127.0.0.1:{where[1]}"
        for each in waiting:
            each.close()


async def test_an_error_that_comes_in_pieces_is_passed_on_whole() -> None:
    text = json.dumps({"error": {"type": "overloaded_error", "message": "x" * 5000}}).encode()
    async with provider("529 Overloaded\r\ncontent-type: application/json", text[:100], text[100:]) as url:
        async with ModelApi() as api, gateway(api, anthropic_url=url) as served:
            key = await served.mint()
            for path in ("/anthropic/v1/messages", "/anthropic/v1/messages/count_tokens"):
                answer = await call(served.url + path, headers={"x-api-key": key.value}, body=BODY)
                assert (answer.status, answer.body) == (529, text)


async def test_an_error_that_is_too_long_is_not_passed_on_in_part() -> None:
    async with provider("529 Overloaded", b"[" * 300_000) as url, ModelApi() as api:
        async with gateway(api, anthropic_url=url) as served:
            key = await served.mint()
            answer = await call(f"{served.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=BODY)
    assert answer.status == 529
    assert answer.json["error"]["message"] == "what the provider anthropic says is too long to be passed on"


async def test_a_provider_that_takes_no_connection_in_time_has_had_no_call() -> None:
    async with full_house() as url, ModelApi() as api, gateway(api, anthropic_url=url, connect_timeout_s=0.2) as served:
        key = await served.mint()
        answer = await call(f"{served.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=BODY)
        last = await served.client.revoke(key.name)
    assert answer.status == 504
    assert last is not None
    assert (last.calls, last.charged_micro_usd) == (0, 0)


async def test_hanging_up_before_the_last_byte_of_a_reply_in_one_piece_is_not_free() -> None:
    """Gemini's other stream is a list of JSON, which tells nothing before its last bracket."""
    head = b'[{"candidates": [{"content": {"parts": [{"text": "' + b"word " * 800
    async with provider("200 OK\r\ncontent-type: application/json\r\ncontent-length: 9000", head, b"") as url:
        async with ModelApi() as api, gateway(api, gemini_url=url) as served:
            key = await served.mint()
            path = "/gemini/v1beta/models/gemini-3-flash-preview:streamGenerateContent"
            async with opened(served.url + path, headers={"x-goog-api-key": key.value}, body={}) as reply:
                await reply.reader.readexactly(len(head))
            [event] = await served.recorded(1)
    assert not event.complete
    assert event.usage.cost_micro_usd is None
    assert event.charged_micro_usd is not None
    assert event.charged_micro_usd >= len(head) // 4 * 2  # of 3 USD a million tokens


async def test_a_reply_that_ends_without_a_word_of_its_usage_is_charged_by_its_length() -> None:
    said = b'data: {"candidates": [{"content": {"parts": [{"text": "' + b"word " * 800 + b'"}]}}]}\n\n'
    async with provider("200 OK\r\ncontent-type: text/event-stream", said) as url, ModelApi() as api:
        async with gateway(api, gemini_url=url) as served:
            key = await served.mint()
            path = "/gemini/v1beta/models/gemini-3-flash-preview:streamGenerateContent?alt=sse"
            assert (await call(served.url + path, headers={"x-goog-api-key": key.value}, body={})).body == said
            last = await served.client.revoke(key.name)
    assert last is not None
    assert last.usage.cost_micro_usd is None
    assert last.charged_micro_usd >= len(said) // 4 * 2


async def test_what_costs_more_than_its_tokens_is_recorded_as_of_unknown_cost() -> None:
    usage = {"input_tokens": 1000, "output_tokens": 10, "server_tool_use": {"code_execution_requests": 1}}
    said = json.dumps({"type": "message", "model": "claude-sonnet-4-5", "usage": usage}).encode()
    async with provider("200 OK\r\ncontent-type: application/json", said) as url, ModelApi() as api:
        async with gateway(api, anthropic_url=url) as served:
            key = await served.mint()
            await call(f"{served.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=BODY)
            [event] = await served.recorded(1)
    assert (event.complete, event.usage.input_tokens, event.usage.cost_micro_usd) == (True, 1000, None)
    assert event.charged_micro_usd == 1000 * 3 + 10 * 15


async def test_a_models_name_that_is_too_long_for_an_event_loses_no_call() -> None:
    usage = {"input_tokens": 1000, "output_tokens": 10}
    said = json.dumps({"type": "message", "model": "m" * (2 << 20), "usage": usage}).encode()
    async with provider("200 OK\r\ncontent-type: application/json", said) as url, ModelApi() as api:
        async with gateway(api, anthropic_url=url) as served:
            key = await served.mint()
            await call(f"{served.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=BODY)
            [event] = await served.recorded(1)
    assert (event.model, event.usage.input_tokens) == ("m" * 256, 1000)
