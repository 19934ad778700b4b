"""What each API's addresses and errors look like: which paths pass, where they lead, how a refusal is said. Pure.

Below the gateway's address `/anthropic`, `/openai` and `/gemini` (also `/genai`) are the roots of three APIs. Every other path is refused:
what cannot be metered does not pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from sandreel_bridge.gateway.port import Dialect

Api = Literal["messages", "chat", "responses", "gemini"]

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
# Of a query, what passes. A key in it would stand in logs; whose account is charged, and what of a reply is wanted (with Google
# `fields`, and `alt` for its form: then no usage could be read in it), is not the sandbox's to say.
_QUERY: Mapping[Dialect, frozenset[str]] = {
    "anthropic": frozenset({"beta=true"}),
    "openai": frozenset(),
    "gemini": frozenset({"alt=sse", "alt=json"}),
}


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
    if method == "GET" and path in _LISTS:
        return Route(_LISTS[path], "messages", path, metered=False, lists=True)
    if method != "POST":
        return None
    if path in _PATHS:
        provider, api, there, metered = _PATHS[path]
        return Route(provider, api, there + _kept(provider, query), metered)
    found = _GEMINI.match(path)
    if found is None or found["verb"] not in _VERBS:
        return None
    return Route("gemini", "gemini", found["path"] + _kept("gemini", query), _VERBS[found["verb"]], found["model"])


def _kept(provider: Dialect, query: str) -> str:
    kept = "&".join(part for part in query.split("&") if part in _QUERY[provider])
    return f"?{kept}" if kept else ""


def dialect_of(target: str) -> Dialect:
    """In whose form a refusal is said: by the path's root, Anthropic's where it has none that is known."""
    root = target.split("/", 2)[1].partition("?")[0] if "/" in target else ""
    return "openai" if root == "openai" else "gemini" if root in ("gemini", "genai") else "anthropic"


_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
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
    408: ("invalid_request_error", "request_timeout"),
    413: ("invalid_request_error", "request_too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}
_GOOGLE = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
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
