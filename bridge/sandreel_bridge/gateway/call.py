"""A request for a model, as it is judged: whose model, how much may come back, and nothing that the gateway cannot answer for. Pure.

What is judged is what the provider reads: the body is written anew, each name once, so that two readers of a name that stands
twice cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct, field

from sandreel_bridge.gateway.dialect import Api, Route
from sandreel_core.errors import Malformed

# Where a request names no limit of its own: what is reserved for its answer.
DEFAULT_MAX_OUTPUT = 32_000
# Bytes of a request for one token of its input, roughly: of prose, by which one is charged whose usage was not told; and of what is
# denser (digits, Chinese, the newer models' own counting), which is reserved. What it is by the provider's count is settled afterwards.
BYTES_A_TOKEN = 4
_DENSE_BYTES_A_TOKEN = 2
# What the provider gets by itself, from an address or its own files, is not in the request's length: a document of a hundred
# pages, of which Anthropic counts 1,500 to 3,000 tokens each.
_TOKENS_ELSEWHERE = 150_000
# Where it is named. Quotes in what a person or a program said are escaped, so that these are the request's own.
_ELSEWHERE = re.compile(
    rb"""
    "(?:file_id|file_url|file_uri|fileUri)"\s*:\s*"
    | "type"\s*:\s*"url"
    | "image_url"\s*:\s*(?:\{[^{}"]*"url"\s*:\s*)?"http
    """,
    re.VERBOSE,
)
_HINTS = (b'"url"', b'"file_', b'"fileUri"', b'"image_url"')

_ONLY_STANDARD = "costs another price than the one that is known"
_NOT_YOURS = "names what the provider has kept, and it may be another's"
_FENCE = "has the provider call addresses for you, past the session's fence"
# What does not pass, by the name of the field, and why.
_REFUSED: Mapping[str, str] = {
    "background": "is not metered",
    "models": "names other models",
    "fallbacks": "names other models",
    "previous_response_id": _NOT_YOURS,
    "conversation": _NOT_YOURS,
    "prompt": _NOT_YOURS,
    "cachedContent": _NOT_YOURS,
    "cached_content": _NOT_YOURS,
    "mcp_servers": _FENCE,
}
_NOTHING = (b"null", b"false")
_STANDARD_TIERS = frozenset({"auto", "default", "standard", "standard_only", "unspecified"})


class _Tool(Struct):
    type: str | None = None


class _Body(Struct):
    model: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    stream: bool = False
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    stream_options: dict[str, Any] | None = None
    n: int | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    tools: list[_Tool] | None = None


class _GeminiConfig(Struct):
    """Google's servers take both spellings."""

    max_output_tokens: int | None = None
    camel_max_output_tokens: int | None = field(name="maxOutputTokens", default=None)
    candidate_count: int | None = None
    camel_candidate_count: int | None = field(name="candidateCount", default=None)


class _GeminiBody(Struct):
    generation_config: _GeminiConfig | None = None
    camel_generation_config: _GeminiConfig | None = field(name="generationConfig", default=None)
    service_tier: str | None = None
    camel_service_tier: str | None = field(name="serviceTier", default=None)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was read. `body` is what the provider gets: what came, but that a streamed Chat Completion is asked to
    tell its usage. `most_input`, `most_output`: tokens that are reserved for it; `least_input`: that it is charged at least."""

    model: str
    body: bytes
    least_input: int
    most_input: int
    most_output: int


_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_body = msgspec.json.Decoder(_Body).decode
_gemini = msgspec.json.Decoder(_GeminiBody).decode
# Every name that is looked at, so that none can stand there a second time in another spelling.
_JUDGED = {
    name.casefold(): name
    for name in (*_REFUSED, *(field.encode_name for each in (_Body, _GeminiBody) for field in msgspec.structs.fields(each)))
}  # fmt: skip


def read_call(route: Route, body: bytes) -> Call:
    """Raises Malformed for a body that is not of the API's form, and for what the gateway cannot answer for."""
    try:
        fields = _fields(body)
        _check_names(fields)
        body = msgspec.json.encode(fields)
        if route.api == "gemini":
            return _of_gemini(route, _gemini(body), body)
        read = _body(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the request is not of the API's form: {str(error)[:200].replace('`', '')}") from None
    if not read.model:
        raise Malformed("the request names no model")
    _check_tier(read.service_tier)
    for name, value, standard in (("speed", read.speed, "standard"), ("inference_geo", read.inference_geo, "global")):
        if value not in (None, standard):
            raise Malformed(f"{name} {value[:40]!r} {_ONLY_STANDARD}")
    for tool in read.tools or ():
        if tool.type is not None and tool.type.startswith("mcp"):
            raise Malformed(f"the tool {tool.type[:40]!r} {_FENCE}")
    if route.api == "chat" and read.stream and not (read.stream_options or {}).get("include_usage"):
        told = {**(read.stream_options or {}), "include_usage": True}
        body = msgspec.json.encode(fields | {"stream_options": Raw(msgspec.json.encode(told))})
    most = _most(_limits(route.api, read)) * max(1, read.n or 1)
    return Call(read.model, body, *_input(body), most)


def _check_names(fields: Mapping[str, Raw]) -> None:
    for name, value in fields.items():
        judged = _JUDGED.get(name.casefold())
        if judged is not None and judged != name:
            raise Malformed(f"{name[:40]!r} is not the field's name, which is {judged!r}")
        if name in _REFUSED and bytes(value) not in _NOTHING:
            raise Malformed(f"{name} {_REFUSED[name]}: it does not pass")


def _check_tier(tier: str | None) -> None:
    if tier is not None and tier.lower().removeprefix("service_tier_") not in _STANDARD_TIERS:
        raise Malformed(f"service_tier {tier[:40]!r} {_ONLY_STANDARD}")


def _limits(api: Api, read: _Body) -> Iterable[int | None]:
    """What that API's servers read as the limit of the answer."""
    if api == "messages":
        return (read.max_tokens,)
    return (read.max_output_tokens,) if api == "responses" else (read.max_tokens, read.max_completion_tokens)


def _most(limits: Iterable[int | None]) -> int:
    return max((limit for limit in limits if limit is not None and limit > 0), default=DEFAULT_MAX_OUTPUT)


def _of_gemini(route: Route, read: _GeminiBody, body: bytes) -> Call:
    for tier in (read.service_tier, read.camel_service_tier):
        _check_tier(tier)
    configs = [each for each in (read.generation_config, read.camel_generation_config) if each is not None]
    most = _most(limit for each in configs for limit in (each.max_output_tokens, each.camel_max_output_tokens))
    counts = [count or 1 for each in configs for count in (each.candidate_count, each.camel_candidate_count)]
    return Call(route.model or "", body, *_input(body), most * max(1, *counts, 1))


def _input(body: bytes) -> tuple[int, int]:
    """(at least, at most), roughly."""
    elsewhere = len(_ELSEWHERE.findall(body)) * _TOKENS_ELSEWHERE if any(hint in body for hint in _HINTS) else 0
    return len(body) // BYTES_A_TOKEN + elsewhere, len(body) // _DENSE_BYTES_A_TOKEN + elsewhere
