"""Installation tokens of a GitHub App, against a double of the documented API on loopback."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from sandreel_bridge.broker.github_app import GitHubApp, app_jwt
from sandreel_core.clock import now
from sandreel_core.errors import Malformed, Refused, Unavailable
from tests.support.loopback import Quiet, serving

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem_of(key: Any) -> bytes:
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return pem


PEM = pem_of(KEY)


def claims_of(token: str) -> dict[str, Any]:
    """Raises when the app has not signed it with RS256."""
    head, claims, signature = token.split(".")
    KEY.public_key().verify(_bytes(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
    assert json.loads(_bytes(head)) == {"alg": "RS256", "typ": "JWT"}
    found: dict[str, Any] = json.loads(_bytes(claims))
    return found


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Api:
    """What it was asked for, the tokens that work, and how it answers."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    alive: set[str] = field(default_factory=set)
    status: int = 201


@pytest.fixture
def api() -> Iterator[Api]:
    served = Api()

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/api/v3/app/installations/42/access_tokens"
            assert self.headers["X-GitHub-Api-Version"] == "2022-11-28"
            claims = claims_of(self.headers["Authorization"].removeprefix("Bearer "))
            served.asked.append(body | {"claims": claims})
            token = f"ghs_{len(served.asked)}"
            served.alive.add(token)
            self._say(served.status, {"token": token, "expires_at": "2026-11-26T08:00:00Z", "permissions": {}})

        def do_GET(self) -> None:
            served.asked.append({"where": self.path, "who": self.headers["Authorization"]})
            self._say(200, {"token": "ghs_0", "expires_at": "2026-11-26T08:00:00Z"})

        def do_DELETE(self) -> None:
            assert self.path == "/api/v3/installation/token"
            served.alive.remove(self.headers["Authorization"].removeprefix("Bearer "))
            self._say(204, None)

        def _say(self, status: int, body: dict[str, Any] | None) -> None:
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"{served.url}elsewhere")
            self.end_headers()
            if body is not None:
                self.wfile.write(json.dumps(body).encode())

    with serving(Handler) as port:
        served.url = f"http://127.0.0.1:{port}/api/v3/"
        yield served


def options(api: Api, **more: str) -> dict[str, str]:
    return {"app_id": "7", "installation_id": "42", "api": api.url} | more


async def test_a_token_is_minted_for_one_repository_and_ended(api: Api) -> None:
    app = GitHubApp()
    made = await app.mint(PEM, options(api, permissions="contents:write,metadata"), "acme/tool")
    assert (made.token, made.resource) == ("ghs_1", "acme/tool")
    assert made.expires_at == datetime(2026, 11, 26, 8, tzinfo=UTC)
    assert "ghs_1" not in repr(made)
    (asked,) = api.asked
    assert asked["repositories"] == ["tool"]
    assert asked["permissions"] == {"contents": "write", "metadata": "read"}
    claims, at = asked["claims"], now().timestamp()
    assert claims["iss"] == "7"
    assert claims["iat"] < at < claims["exp"] <= at + 600
    await app.end(made.token, options(api))
    assert api.alive == set()


async def test_only_repositories_that_the_credential_is_for_are_asked_for(api: Api) -> None:
    app, allowed = GitHubApp(), "acme/tool, docs"
    assert (await app.mint(PEM, options(api, repositories=allowed), "acme/Tool")).resource == "acme/Tool"
    assert (await app.mint(PEM, options(api, repositories=allowed), "acme/docs")).resource == "acme/docs"
    assert (await app.mint(PEM, options(api, repositories=allowed), None)).resource == "acme/tool,docs"
    assert api.asked[-1]["repositories"] == ["tool", "docs"]
    for resource in ("acme/other", "docs/other"):
        with pytest.raises(Refused, match="RESOURCE_NOT_ALLOWED"):
            await app.mint(PEM, options(api, repositories=allowed), resource)
    assert len(api.asked) == 3


@pytest.mark.parametrize(("status", "kind"), [(401, Refused), (404, Refused), (429, Unavailable), (503, Unavailable)])
async def test_what_the_api_refuses_is_said_without_what_it_says(api: Api, status: int, kind: type[Exception]) -> None:
    api.status = status
    with pytest.raises(kind, match=f"the API answers {status}") as error:
        await GitHubApp().mint(PEM, options(api), None)
    assert "ghs_" not in str(error.value)


async def test_an_api_that_sends_us_elsewhere_is_not_followed(api: Api) -> None:
    api.status = 302
    with pytest.raises(Refused, match="the API answers 302"):
        await GitHubApp().mint(PEM, options(api), None)
    assert len(api.asked) == 1


async def test_an_api_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await GitHubApp().mint(PEM, options(Api(url="http://127.0.0.1:1")), None)


@pytest.mark.parametrize(
    "value",
    [
        b"no key",
        PEM[:200],
        pem_of(ec.generate_private_key(ec.SECP256R1())),
        pem_of(rsa.generate_private_key(65537, 1024)),
    ],
)
def test_a_value_that_is_no_key_is_said_and_not_repeated(value: bytes) -> None:
    with pytest.raises(Malformed, match="private key") as error:
        app_jwt(value, "7", now())
    assert value[:20].decode() not in str(error.value)
