"""Anthropic's Messages API. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.support.model_api.asked import Asked, Item, text_of, workdir
from tests.support.model_api.dialect import Api, Json, sse, words
from tests.support.model_api.script import Failure, Reply, Say, Think
from tests.support.model_api.tools import call

_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_INPUT_PIECE = 24  # characters of a tool's input in one event


def asked(path: str, body: Json) -> Asked:
    items: list[Item] = []
    for message in body.get("messages") or []:
        content = message.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        steered = message["role"] == "system" and _steered(text_of(content))
        role = "assistant" if message["role"] == "assistant" else "user"
        for block in content or []:
            if block.get("type") == "text" and (steered or message["role"] != "system"):
                items.append(Item("assistant" if role == "assistant" else "user", block["text"]))
            elif block.get("type") == "tool_use":
                items.append(Item("assistant", ""))
            elif block.get("type") == "tool_result":
                items.append(Item("tool", result := text_of(block.get("content"))))
                items += [Item("user", result)] if _steered(result) else []
    system = text_of(body.get("system"))
    return Asked(
        "anthropic",
        str(body.get("model")),
        bool(body.get("stream")),
        tuple(items),
        tuple(str(tool.get("name")) for tool in body.get("tools") or []),
        workdir(system, *(text_of(message.get("content")) for message in body.get("messages") or [])),
        body.get("max_tokens"),
    )


def _steered(text: str) -> bool:
    """What a person says in mid-turn reaches the model as a system message, or in a tool's result where the model knows no such messages
    (Claude Code 2.1.330): over stdin, and by the steer hook."""
    return "The user sent a new message" in text or "[SANDREEL_STEER " in text


def _blocks(reply: Reply, asked: Asked, id: str) -> list[Json]:
    made: list[Json] = []
    for number, block in enumerate(reply.blocks):
        if isinstance(block, Say):
            made.append({"type": "text", "text": block.text})
        elif isinstance(block, Think):
            made.append({"type": "thinking", "thinking": block.text, "signature": "c2lnbmVk"})
        else:
            name, input = call(block, asked)
            made.append({"type": "tool_use", "id": f"toolu_{id}{number:02}", "name": name, "input": input})
    return made


def _usage(reply: Reply, output: int) -> Json:
    tokens = reply.tokens
    return {
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": tokens.cache_creation,
        "cache_read_input_tokens": tokens.cache_read,
        "output_tokens": output,
        "service_tier": "standard",
    }


def _stop(reply: Reply, blocks: list[Json]) -> str:
    if reply.stop == "max_tokens":
        return "max_tokens"
    return "tool_use" if any(block["type"] == "tool_use" for block in blocks) else "end_turn"


def _message(asked: Asked, id: str, **fields: object) -> Json:
    return {"id": f"msg_{id}", "type": "message", "role": "assistant", "model": asked.model, **fields}


def whole(reply: Reply, asked: Asked, id: str) -> Json:
    blocks = _blocks(reply, asked, id)
    usage = _usage(reply, reply.tokens.output)
    return _message(asked, id, content=blocks, stop_reason=_stop(reply, blocks), stop_sequence=None, usage=usage)


def events(reply: Reply, asked: Asked, id: str) -> Iterator[bytes]:
    blocks = _blocks(reply, asked, id)
    start = _message(asked, id, content=[], stop_reason=None, stop_sequence=None, usage=_usage(reply, 1))
    yield _event({"type": "message_start", "message": start})
    yield _event({"type": "ping"})
    for index, block in enumerate(blocks):
        empty = {"text": "", "thinking": "", "input": {}, "signature": ""}
        begun = {name: empty.get(name, value) for name, value in block.items()}
        yield _event({"type": "content_block_start", "index": index, "content_block": begun})
        for delta in _deltas(block):
            yield _event({"type": "content_block_delta", "index": index, "delta": delta})
        yield _event({"type": "content_block_stop", "index": index})
    stop = {"stop_reason": _stop(reply, blocks), "stop_sequence": None}
    yield _event({"type": "message_delta", "delta": stop, "usage": _usage(reply, reply.tokens.output)})
    yield _event({"type": "message_stop"})


def _deltas(block: Json) -> Iterator[Json]:
    if block["type"] == "text":
        yield from ({"type": "text_delta", "text": word} for word in words(block["text"]))
    elif block["type"] == "thinking":
        yield {"type": "thinking_delta", "thinking": block["thinking"]}
        yield {"type": "signature_delta", "signature": block["signature"]}
    else:
        input = json.dumps(block["input"])
        for at in range(0, len(input), _INPUT_PIECE):
            yield {"type": "input_json_delta", "partial_json": input[at : at + _INPUT_PIECE]}


def _event(data: Json) -> bytes:
    return sse(data, data["type"])


def failure(failure: Failure) -> Json:
    kind = _ERRORS.get(failure.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": failure.message or f"stand-in: {kind}"}}


API = Api(asked, whole, events, failure)
