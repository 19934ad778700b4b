"""What of a request and its reply goes through: headers, keys, addresses. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sandreel_bridge.gateway.port import Dialect

Headers = Iterable[tuple[str, str]]

# RFC 9110 §7.6.1, and what belongs to one connection all the same.
_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "trailers"),
        *("transfer-encoding", "upgrade", "proxy-connection", "expect"),
    }
)
# Of a request, what is not the sandbox's to say: who it is, whose account is charged, another method, what of the reply is
# wanted. Replies have to come as they are counted, so no encoding is asked for.
_NOT_SENT = _HOP | {
    *("host", "content-length", "accept-encoding", "authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie"),
    *("openai-organization", "openai-project", "forwarded", "via", "x-real-ip"),
    *("x-http-method-override", "x-http-method", "x-method-override"),
}
# Google's own headers say whose project is charged and which fields a reply has; of them only the program's name passes.
_GOOGLE, _GOOGLE_SENT = "x-goog-", "x-goog-api-client"
# Of a reply, what tells of the operator's account with the provider.
_NOT_TOLD = _HOP | {
    *("set-cookie", "anthropic-organization-id", "openai-organization", "openai-project", "www-authenticate", "server"),
    *("alt-svc", "strict-transport-security", "via", "x-goog-user-project"),
}


def presented(headers: Mapping[str, str]) -> str | None:
    """The virtual key of a request, by whichever header its program has for one. None: none, or two that differ."""
    bearer = headers.get("authorization", "")
    found = {bearer[7:].strip() if bearer[:7].lower() == "bearer " else ""}
    found |= {headers.get(name, "").strip() for name in ("x-api-key", "x-goog-api-key")}
    found.discard("")
    return found.pop() if len(found) == 1 else None


def sent(headers: Headers, provider: Dialect, key: str) -> list[tuple[str, str]]:
    """What the provider gets, the virtual key replaced by its own."""
    kept = [
        (name, value)
        for name, value in headers
        if _passes(name, _NOT_SENT) and (not name.lower().startswith(_GOOGLE) or name.lower() == _GOOGLE_SENT)
    ]
    return [*kept, ("Accept-Encoding", "identity"), _credential(provider, key)]


def told(headers: Headers) -> list[tuple[str, str]]:
    """What the sandbox gets."""
    return [(name, value) for name, value in headers if _passes(name, _NOT_TOLD)]


def _passes(name: str, without: frozenset[str]) -> bool:
    lower = name.lower()
    return lower not in without and not lower.startswith(("x-forwarded-", "cf-", "proxy-"))


def _credential(provider: Dialect, key: str) -> tuple[str, str]:
    if provider == "anthropic":
        return "x-api-key", key
    if provider == "gemini":
        return "x-goog-api-key", key
    return "Authorization", f"Bearer {key}"
