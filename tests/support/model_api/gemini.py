"""Google's Gemini API. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.model_api.asked import Asked, Item, text_of, workdir
from tests.support.model_api.dialect import Api, Json, sse, words
from tests.support.model_api.script import Failure, Reply, Say, Think
from tests.support.model_api.tools import call

_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


def asked(path: str, body: Json) -> Asked:
    """The model stands in the path: `…/models/MODEL:streamGenerateContent`."""
    items: list[Item] = []
    for content in body.get("contents") or []:
        for part in content.get("parts") or []:
            if "functionResponse" in part:
                items.append(Item("tool", str(part["functionResponse"])))
            elif content.get("role") == "model":
                items.append(Item("assistant", part.get("text") or ""))
            elif "text" in part:
                items.append(Item("user", part["text"]))
    named = [
        str(function["name"]) for tool in body.get("tools") or [] for function in tool.get("functionDeclarations") or []
    ]
    system = text_of((body.get("systemInstruction") or {}).get("parts"))
    model, _, verb = path.partition("?")[0].rsplit("/", 1)[-1].partition(":")
    limit = (body.get("generationConfig") or {}).get("maxOutputTokens")
    texts = (system, *(item.text for item in items))
    return Asked("gemini", model, verb.startswith("stream"), tuple(items), tuple(named), workdir(*texts), limit)


def _parts(reply: Reply, asked: Asked) -> list[Json]:
    made: list[Json] = []
    for block in reply.blocks:
        if isinstance(block, Say):
            made += [{"text": word} for word in words(block.text)]
        elif isinstance(block, Think):
            made.append({"text": f"**Thinking**\n{block.text}", "thought": True})
        else:
            name, input = call(block, asked)
            made.append({"functionCall": {"name": name, "args": input}, "thoughtSignature": "c2lnbmVk"})
    return made


def _response(reply: Reply, asked: Asked, id: str, parts: list[Json], *, last: bool) -> Json:
    tokens = reply.tokens
    prompt = tokens.input + tokens.cache_read + tokens.cache_creation
    candidate: Json = {"content": {"role": "model", "parts": parts}, "index": 0}
    if last:
        candidate["finishReason"] = "MAX_TOKENS" if reply.stop == "max_tokens" else "STOP"
    usage = {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": tokens.cache_read,
        "candidatesTokenCount": tokens.output - tokens.reasoning,
        "thoughtsTokenCount": tokens.reasoning,
        "totalTokenCount": prompt + tokens.output,
    }
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": asked.model, "responseId": id}


def whole(reply: Reply, asked: Asked, id: str) -> Json:
    return _response(reply, asked, id, _parts(reply, asked), last=True)


def events(reply: Reply, asked: Asked, id: str) -> Iterator[bytes]:
    parts = _parts(reply, asked)
    for number, part in enumerate(parts):
        yield sse(_response(reply, asked, id, [part], last=number == len(parts) - 1))


def failure(failure: Failure) -> Json:
    status = _STATUSES.get(failure.status, "INTERNAL")
    message = failure.message or f"stand-in: {status}"
    return {"error": {"code": failure.status, "message": message, "status": status}}


API = Api(asked, whole, events, failure)
