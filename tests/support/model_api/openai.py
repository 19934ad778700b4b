"""OpenAI's two APIs, Chat Completions and Responses. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.support.model_api.asked import Asked, Item, Role, text_of, workdir
from tests.support.model_api.dialect import Api, Json, sse, words
from tests.support.model_api.script import Failure, Reply, Say, Think
from tests.support.model_api.tools import call

_CODES = {401: "invalid_api_key", 402: "insufficient_quota", 404: "not_found", 429: "rate_limit_exceeded"}
_CREATED = 1_790_000_000


def failure(failure: Failure) -> Json:
    code = _CODES.get(failure.status, "server_error")
    return {"error": {"message": failure.message or f"stand-in: {code}", "type": code, "param": None, "code": code}}


def _role(name: str) -> Role:
    return "assistant" if name == "assistant" else "tool" if name == "tool" else "user"


# Chat Completions


def _chat_asked(path: str, body: Json) -> Asked:
    messages = body.get("messages") or []
    items = [
        Item(_role(message["role"]), text_of(message.get("content")))
        for message in messages
        if message["role"] not in ("system", "developer")
    ]
    names = [str(tool["function"]["name"]) for tool in body.get("tools") or [] if tool.get("function")]
    texts = [text_of(message.get("content")) for message in messages]
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return Asked("chat", str(body.get("model")), bool(body.get("stream")), tuple(items), tuple(names), workdir(*texts), limit)  # fmt: skip


def _chat_usage(reply: Reply) -> Json:
    tokens = reply.tokens
    input = tokens.input + tokens.cache_read + tokens.cache_creation
    return {
        "prompt_tokens": input,
        "completion_tokens": tokens.output,
        "total_tokens": input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }


def _chat_parts(reply: Reply, asked: Asked, id: str) -> tuple[str, str, list[Json], str]:
    """(text, thoughts, tool calls, why it ends)"""
    text = "".join(block.text for block in reply.blocks if isinstance(block, Say))
    thoughts = "".join(block.text for block in reply.blocks if isinstance(block, Think))
    calls = []
    for number, block in enumerate(reply.blocks):
        if not isinstance(block, Say | Think):
            name, input = call(block, asked)
            function = {"name": name, "arguments": json.dumps(input)}
            calls.append({"id": f"call_{id}{number:02}", "type": "function", "function": function})
    return text, thoughts, calls, "length" if reply.stop == "max_tokens" else "tool_calls" if calls else "stop"


def _chat_whole(reply: Reply, asked: Asked, id: str) -> Json:
    text, _, calls, why = _chat_parts(reply, asked, id)
    message = {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}
    return {
        "id": f"chatcmpl-{id}",
        "object": "chat.completion",
        "created": _CREATED,
        "model": asked.model,
        "choices": [{"index": 0, "message": message, "finish_reason": why}],
        "usage": _chat_usage(reply),
    }


def _chat_events(reply: Reply, asked: Asked, id: str) -> Iterator[bytes]:
    text, thoughts, calls, why = _chat_parts(reply, asked, id)
    base = {"id": f"chatcmpl-{id}", "object": "chat.completion.chunk", "created": _CREATED, "model": asked.model}

    def chunk(delta: Json, finish: str | None = None) -> bytes:
        return sse({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    yield chunk({"role": "assistant", "content": ""})
    if thoughts:
        yield chunk({"reasoning_content": thoughts})
    if text:
        yield from (chunk({"content": word}) for word in words(text))
    for number, each in enumerate(calls):
        yield chunk({"tool_calls": [{**each, "index": number}]})
    yield chunk({}, why)
    # As the API does where `stream_options.include_usage` asks for it; the gateway is what asks.
    yield sse({**base, "choices": [], "usage": _chat_usage(reply)})
    yield sse("[DONE]")


CHAT = Api(_chat_asked, _chat_whole, _chat_events, failure)


# Responses


def _asked(path: str, body: Json) -> Asked:
    given = body.get("input")
    entries: list[Any] = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
    items: list[Item] = []
    for entry in entries:
        kind = entry.get("type")
        if kind in (None, "message") and entry.get("role") not in ("system", "developer"):
            items.append(Item(_role(str(entry.get("role"))), text_of(entry.get("content"))))
        elif str(kind).endswith("_output"):
            items.append(Item("tool", text_of(entry.get("output"))))
        elif str(kind).endswith("_call") or kind == "reasoning":
            items.append(Item("assistant", ""))
    names = [str(tool.get("name") or tool.get("type")) for tool in body.get("tools") or []]
    texts = [str(body.get("instructions") or ""), *(text_of(entry.get("content")) for entry in entries)]
    limit = body.get("max_output_tokens")
    return Asked("responses", str(body.get("model")), bool(body.get("stream")), tuple(items), tuple(names), workdir(*texts), limit)  # fmt: skip


def _output(reply: Reply, asked: Asked, id: str) -> list[Json]:
    made: list[Json] = []
    for number, block in enumerate(reply.blocks):
        if isinstance(block, Say):
            content = [{"type": "output_text", "text": block.text, "annotations": []}]
            made.append({"id": f"msg_{id}{number:02}", "type": "message", "role": "assistant", "status": "completed", "content": content})  # fmt: skip
        elif isinstance(block, Think):
            summary = [{"type": "summary_text", "text": block.text}]
            made.append({"id": f"rs_{id}{number:02}", "type": "reasoning", "summary": summary})
        else:
            name, input = call(block, asked)
            made.append(
                {
                    "id": f"fc_{id}{number:02}",
                    "type": "function_call",
                    "status": "completed",
                    "call_id": f"call_{id}{number:02}",
                    "name": name,
                    "arguments": json.dumps(input),
                }
            )
    return made


def _response(reply: Reply, asked: Asked, id: str, *, done: bool) -> Json:
    tokens = reply.tokens
    input = tokens.input + tokens.cache_read + tokens.cache_creation
    usage = {
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": tokens.cache_read},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": input + tokens.output,
    }
    cut_short = reply.stop == "max_tokens"
    return {
        "id": f"resp_{id}",
        "object": "response",
        "created_at": _CREATED,
        "model": asked.model,
        "error": None,
        "status": "in_progress" if not done else "incomplete" if cut_short else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if done and cut_short else None,
        "output": _output(reply, asked, id) if done else [],
        "usage": usage if done else None,
    }


def _whole(reply: Reply, asked: Asked, id: str) -> Json:
    return _response(reply, asked, id, done=True)


def _events(reply: Reply, asked: Asked, id: str) -> Iterator[bytes]:
    for number, (kind, fields) in enumerate(_told(reply, asked, id)):
        yield sse({"type": kind, "sequence_number": number, **fields}, kind)


def _told(reply: Reply, asked: Asked, id: str) -> Iterator[tuple[str, Json]]:
    begun = _response(reply, asked, id, done=False)
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(_output(reply, asked, id)):
        where = {"item_id": item["id"], "output_index": index}
        started = {**item, **({"content": []} if item["type"] == "message" else {}), "status": "in_progress"}
        yield "response.output_item.added", {"output_index": index, "item": started}
        if item["type"] == "message":
            text = item["content"][0]["text"]
            part = {"type": "output_text", "text": "", "annotations": []}
            yield "response.content_part.added", {**where, "content_index": 0, "part": part}
            for word in words(text):
                yield "response.output_text.delta", {**where, "content_index": 0, "delta": word}
            yield "response.output_text.done", {**where, "content_index": 0, "text": text}
            yield "response.content_part.done", {**where, "content_index": 0, "part": item["content"][0]}
        elif item["type"] == "reasoning":
            text = item["summary"][0]["text"]
            yield "response.reasoning_summary_text.delta", {**where, "summary_index": 0, "delta": text}
        else:
            yield "response.function_call_arguments.done", {**where, "arguments": item["arguments"]}
        yield "response.output_item.done", {"output_index": index, "item": item}
    done = _response(reply, asked, id, done=True)
    yield f"response.{done['status']}", {"response": done}


RESPONSES = Api(_asked, _whole, _events, failure)
