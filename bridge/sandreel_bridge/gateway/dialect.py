"""What each API's requests and errors look like: which paths pass, where the model stands, how a refusal is said. Pure.

Below the gateway's address `/anthropic`, `/openai` and `/gemini` (also `/genai`) are the roots of three APIs. Every other path is refused:
what cannot be metered does not pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from sandreel_bridge.gateway.port import Dialect
from sandreel_core.errors import Malformed

Api = Literal["messages", "chat", "responses", "gemini"]
# Where a request names no limit of its own: what is reserved for its answer.
DEFAULT_MAX_OUTPUT = 32_000
# Bytes of a request for one token of its input, roughly; what it is by the provider's count is settled afterwards.
_BYTES_A_TOKEN = 4

_GEMINI = re.compile(
    r"/(?:gemini|genai)(?P<path>/v1(?:beta|alpha)?/models/(?P<model>[A-Za-z0-9._-]{1,256}):(?P<verb>[A-Za-z]+))\Z"
)
_PATHS: Mapping[str, tuple[Dialect, Api, str, bool]] = {
    "/anthropic/v1/messages": ("anthropic", "messages", "/v1/messages", True),
    "/anthropic/v1/messages/count_tokens": ("anthropic", "messages", "/v1/messages/count_tokens", False),
    "/openai/v1/chat/completions": ("openai", "chat", "/v1/chat/completions", True),
    "/openai/v1/responses": ("openai", "responses", "/v1/responses", True),
}
_VERBS = {"generateContent": True, "streamGenerateContent": True, "countTokens": False}
_LISTS: Mapping[str, Dialect] = {
    "/anthropic/v1/models": "anthropic",
    "/openai/v1/models": "openai",
    "/gemini/v1beta/models": "gemini",
    "/genai/v1beta/models": "gemini",
}
# A key in the address would stand in logs; what selects whose account is charged is not the sandbox's to say.
_DROPPED_QUERY = frozenset({"key", "access_token"})


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes. `path` and query are the provider's; `model` stands in the path with Gemini; `lists`: it asks
    for the names of models, which the gateway answers itself."""

    provider: Dialect
    api: Api
    path: str
    metered: bool = True
    model: str | None = None
    lists: bool = False


def route(method: str, target: str) -> Route | None:
    """Of a request line. None: it does not pass."""
    path, _, query = target.partition("?")
    kept = "&".join(part for part in query.split("&") if part and part.partition("=")[0] not in _DROPPED_QUERY)
    query = f"?{kept}" if kept else ""
    if method == "GET" and path in _LISTS:
        return Route(_LISTS[path], "messages", path, metered=False, lists=True)
    if method != "POST":
        return None
    if path in _PATHS:
        provider, api, there, metered = _PATHS[path]
        return Route(provider, api, there + query, metered)
    found = _GEMINI.match(path)
    if found is None or found["verb"] not in _VERBS:
        return None
    return Route("gemini", "gemini", found["path"] + query, _VERBS[found["verb"]], found["model"])


def dialect_of(target: str) -> Dialect:
    """In whose form a refusal is said: by the path's root, Anthropic's where it has none that is known."""
    root = target.split("/", 2)[1].partition("?")[0] if "/" in target else ""
    return "openai" if root == "openai" else "gemini" if root in ("gemini", "genai") else "anthropic"


class _Body(Struct):
    model: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    stream: bool = False
    background: bool = False
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    stream_options: dict[str, Any] | None = None
    n: int | None = None


class _GeminiConfig(Struct, rename="camel"):
    max_output_tokens: int | None = None
    candidate_count: int | None = None


class _GeminiBody(Struct, rename="camel"):
    generation_config: _GeminiConfig | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was read. `body` is what the provider gets: as it came, but for a streamed Chat Completion, which is
    asked to tell its usage. `most_input`, `most_output`: tokens that are reserved for it."""

    model: str
    body: bytes
    most_input: int
    most_output: int


_body = msgspec.json.Decoder(_Body).decode
_gemini = msgspec.json.Decoder(_GeminiBody).decode
_any = msgspec.json.Decoder(dict[str, Any]).decode


def read_call(route: Route, body: bytes) -> Call:
    """Raises Malformed for a body that is not of the API's form, and for what cannot be metered."""
    try:
        if route.api == "gemini":
            config = _gemini(body).generation_config or _GeminiConfig()
            most = (config.max_output_tokens or DEFAULT_MAX_OUTPUT) * max(1, config.candidate_count or 1)
            return Call(route.model or "", body, len(body) // _BYTES_A_TOKEN, most)
        read = _body(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the request is not of the API's form: {str(error)[:200].replace('`', '')}") from None
    if not read.model:
        raise Malformed("the request names no model")
    if read.background:
        raise Malformed("background requests are not metered, and do not pass")
    if route.api == "chat" and read.stream and not (read.stream_options or {}).get("include_usage"):
        told = _any(body)
        told["stream_options"] = {**(told.get("stream_options") or {}), "include_usage": True}
        body = msgspec.json.encode(told)
    most = read.max_tokens or read.max_completion_tokens or read.max_output_tokens or DEFAULT_MAX_OUTPUT
    return Call(read.model, body, len(body) // _BYTES_A_TOKEN, max(1, most) * max(1, read.n or 1))


_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_OPENAI = {
    400: ("invalid_request_error", "invalid_request"),
    401: ("invalid_request_error", "invalid_api_key"),
    402: ("insufficient_quota", "insufficient_quota"),
    403: ("invalid_request_error", "model_not_allowed"),
    404: ("invalid_request_error", "not_found"),
    413: ("invalid_request_error", "request_too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}
_GOOGLE = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def refusal(dialect: Dialect, status: int, message: str) -> bytes:
    """An error's body in the form of that API, so that a program tells it as it tells its provider's."""
    if dialect == "anthropic":
        error: dict[str, Any] = {"type": _ANTHROPIC.get(status, "api_error"), "message": message}
        return msgspec.json.encode({"type": "error", "error": error})
    if dialect == "openai":
        kind, code = _OPENAI.get(status, ("server_error", "server_error"))
        return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})
    return msgspec.json.encode(
        {"error": {"code": status, "message": message, "status": _GOOGLE.get(status, "INTERNAL")}}
    )


def models_list(dialect: Dialect, models: tuple[str, ...]) -> bytes:
    """The names that a key may ask for, in the form of that API."""
    if dialect == "gemini":
        return msgspec.json.encode({"models": [{"name": f"models/{name}", "displayName": name} for name in models]})
    if dialect == "openai":
        rows: list[dict[str, Any]] = [{"id": name, "object": "model", "created": 0, "owned_by": "gateway"} for name in models]  # fmt: skip
        return msgspec.json.encode({"object": "list", "data": rows})
    made = "1970-01-01T00:00:00Z"
    rows = [{"type": "model", "id": name, "display_name": name, "created_at": made} for name in models]
    ends = {"first_id": models[0] if models else None, "last_id": models[-1] if models else None}
    return msgspec.json.encode({"data": rows, "has_more": False, **ends})
