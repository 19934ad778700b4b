"""A double of the documented API of GitHub Apps (version 2022-11-28) on loopback: installation tokens, made and ended."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from tests.support.loopback import Quiet, serving


def pem_of(key: Any) -> bytes:
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return pem


@dataclass
class Api:
    """The app's key; what it was asked for; the tokens that work (`alive`, which a git server may share); `status`: how it answers;
    `ends`: how often it was asked to end one."""

    key: RSAPrivateKey
    alive: set[str]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    status: int = 201
    ends: int = 0
    expires_at: datetime = field(
        default_factory=lambda: (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    )

    @property
    def pem(self) -> bytes:
        return pem_of(self.key)

    def claims_of(self, token: str) -> dict[str, Any]:
        """Raises when the app has not signed it with RS256."""
        head, claims, signature = token.split(".")
        self.key.public_key().verify(
            _bytes(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
        )
        assert json.loads(_bytes(head)) == {"alg": "RS256", "typ": "JWT"}
        found: dict[str, Any] = json.loads(_bytes(claims))
        return found


@contextmanager
def github_api(alive: set[str] | None = None) -> Iterator[Api]:
    served = Api(
        key=generate_private_key(public_exponent=65537, key_size=2048), alive=set() if alive is None else alive
    )

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/api/v3/app/installations/42/access_tokens"
            assert self.headers["X-GitHub-Api-Version"] == "2022-11-28"
            claims = served.claims_of(self.headers["Authorization"].removeprefix("Bearer "))
            served.asked.append(body | {"claims": claims})
            token = f"ghs_{secrets.token_hex(18)}"
            served.made.append(token)
            served.alive.add(token)
            self._say(
                served.status,
                {"token": token, "expires_at": f"{served.expires_at:%Y-%m-%dT%H:%M:%SZ}", "permissions": {}},
            )

        def do_GET(self) -> None:
            served.asked.append({"where": self.path, "who": self.headers["Authorization"]})
            self._say(200, {"token": "ghs_0", "expires_at": f"{served.expires_at:%Y-%m-%dT%H:%M:%SZ}"})

        def do_DELETE(self) -> None:
            assert self.path == "/api/v3/installation/token"
            served.ends += 1
            if served.status >= 500:
                self._say(served.status, None)
                return
            token = self.headers["Authorization"].removeprefix("Bearer ")
            known = token in served.alive
            served.alive.discard(token)
            self._say(204 if known else 401, None)

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


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
