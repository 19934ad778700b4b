"""Installation tokens of a GitHub App: made with the app's private key, limited to repositories, ended when the lease is.

What is used of the API (docs.github.com, "REST API endpoints for GitHub Apps", version 2022-11-28): `POST
/app/installations/{id}/access_tokens` as the app, by a JWT signed with RS256, and `DELETE /installation/token` as the token.
"""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from sandreel_bridge.broker import sealing
from sandreel_bridge.broker.issuer import Minted
from sandreel_core.clock import now
from sandreel_core.errors import Refused, Unavailable

API = "https://api.github.com"
_WITHIN_S = 6.0
_MAX_ANSWER_BYTES = 64 * 1024
# GitHub's own advice: issued a minute ago, for clocks that differ, and for ten minutes at most.
_EARLIER_S, _LATER_S = 60, 540


class _Token(Struct, frozen=True):
    token: str
    expires_at: datetime


class GitHubApp:
    """An `Issuer`. `options`: app_id, installation_id, api, repositories and permissions (`name,name`; `contents:read,…`)."""

    async def mint(self, value: bytes, options: Mapping[str, str], resource: str | None) -> Minted:
        allowed = [name.strip() for name in options.get("repositories", "").split(",") if name.strip()]
        wanted = _wanted(allowed, resource)
        body: dict[str, Any] = {}
        if wanted:
            body["repositories"] = [name.rpartition("/")[2] for name in wanted]
        if options.get("permissions"):
            body["permissions"] = dict(_permission(part) for part in options["permissions"].split(","))
        path = f"/app/installations/{options['installation_id']}/access_tokens"
        answer = await _ask("POST", options, path, f"Bearer {app_jwt(value, options['app_id'], now())}", body)
        try:
            made = msgspec.json.decode(answer, type=_Token)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Unavailable("the API's answer is no token", retry_after_s=60) from None
        return Minted(token=made.token, expires_at=made.expires_at, resource=",".join(wanted))

    async def end(self, token: str, options: Mapping[str, str]) -> None:
        # 401: the API knows no such token (any more).
        await _ask("DELETE", options, "/installation/token", f"Bearer {token}", None, well=401)


def app_jwt(pem: bytes, app_id: str, at: datetime) -> str:
    """What the app says who it is with, for some minutes. Raises Malformed when `pem` is no RSA key."""
    issued_s = int(at.timestamp())
    claims = {"iat": issued_s - _EARLIER_S, "exp": issued_s + _LATER_S, "iss": app_id}
    head = f"{_part({'alg': 'RS256', 'typ': 'JWT'})}.{_part(claims)}"
    return f"{head}.{_base64(sealing.sign_rs256(pem, head.encode()))}"


def _wanted(allowed: list[str], resource: str | None) -> list[str]:
    """The repositories to ask for. Raises Refused for one that is not among those allowed, where the owner may be left out:
    an installation is one owner's."""
    if not resource:
        return allowed
    known = {name.lower() for name in allowed}
    if known and not known & {resource.lower(), resource.lower().rpartition("/")[2]}:
        raise Refused("RESOURCE_NOT_ALLOWED", "the credential is not for that repository")
    return [resource]


def _permission(text: str) -> tuple[str, str]:
    name, _, level = text.strip().partition(":")
    return name, level or "read"


async def _ask(
    method: str,
    options: Mapping[str, str],
    path: str,
    who: str,
    body: dict[str, Any] | None,
    *,
    well: int | None = None,
) -> bytes:
    """`well`: a status that is no failure. Raises Unavailable, Refused (MINT_REFUSED) with nothing of what the API has said: it
    may repeat what it was sent."""
    request = urllib.request.Request(  # noqa: S310 - `recipe.check` has seen that it is http or https
        options.get("api", API).rstrip("/") + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": who,
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
            "Content-Type": "application/json",
            "User-Agent": "sandreel",
        },
    )
    return await asyncio.to_thread(_send, request, well)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """urllib would take the app's word to wherever it is sent."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _send(request: urllib.request.Request, well: int | None) -> bytes:
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=_WITHIN_S) as answer:
            body: bytes = answer.read(_MAX_ANSWER_BYTES)
            return body
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == well:
            return b""
        if error.code >= 500 or error.code == 429:
            raise Unavailable(f"the API answers {error.code}", retry_after_s=30) from None
        raise Refused(
            "MINT_REFUSED", f"the API answers {error.code}: look at app_id, installation_id and the key"
        ) from None
    except (OSError, ValueError) as error:
        why = type(error.reason).__name__ if isinstance(error, urllib.error.URLError) else type(error).__name__
        raise Unavailable(f"the API cannot be reached ({why})", retry_after_s=30) from None


def _part(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
