"""NATS JWTs (version 2) of operators, accounts and users: claims in, a signed text out, and back. Pure.

Format: a JSON header and JSON claims, base64url without padding, signed with Ed25519 by the issuer's nkey
(nats-io/jwt, `header.go` and `claims.go`). The server checks the signature; we only ever read our own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from sandreel_core.errors import Malformed

# nats-io/jwt, `header.go`: the only algorithm of version 2.
_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_VERSION = 2
NO_LIMIT = -1
_UNLIMITED: dict[str, Any] = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), NO_LIMIT)
_JETSTREAM: dict[str, Any] = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), NO_LIMIT)

_BEGIN, _END = "-----BEGIN NATS USER JWT-----", "------END NATS USER JWT------"
_BEGIN_SEED, _END_SEED = "-----BEGIN USER NKEY SEED-----", "------END USER NKEY SEED------"

Sign = Callable[[bytes], bytes]
Claims = dict[str, Any]


def encode(claims: Claims, *, issuer: str, issued_at_s: int, sign: Sign) -> str:
    """The signed text. `issuer` is the public key whose seed `sign` has; `issued_at_s` is Unix time."""
    whole = claims | {"iss": issuer, "iat": issued_at_s}
    # The id is a hash of the claims without it, as the reference implementation makes it.
    digest = hashlib.new("sha512_256", msgspec.json.encode(whole, order="sorted")).digest()
    whole["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = f"{_base64(msgspec.json.encode(_HEADER))}.{_base64(msgspec.json.encode(whole))}"
    return f"{signed}.{_base64(sign(signed.encode()))}"


def claims_of(text: str) -> Claims:
    """The claims, unverified: who a credential is, and until when. Raises Malformed."""
    parts = text.strip().split(".")
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        return msgspec.json.decode(base64.urlsafe_b64decode(padded), type=dict[str, Any])
    except (IndexError, ValueError, msgspec.DecodeError):
        raise Malformed("what should be a NATS JWT is none") from None


def operator(subject: str, name: str, *, system_account: str) -> Claims:
    return _claims(subject, name, "operator", {"system_account": system_account})


def account(
    subject: str,
    name: str,
    *,
    jetstream: bool = False,
    signing_keys: Sequence[str] = (),
    exports: Sequence[Mapping[str, Any]] = (),
    imports: Sequence[Mapping[str, Any]] = (),
    revoked: Mapping[str, int] | None = None,
) -> Claims:
    """`signing_keys` may issue users in its name; `revoked`: a user's public key → no JWT of it that was issued up to
    that Unix time is taken."""
    body: Claims = {
        "limits": _UNLIMITED | {"wildcards": True} | (_JETSTREAM if jetstream else {}),
        "exports": [dict(each) for each in exports],
        "imports": [dict(each) for each in imports],
        "signing_keys": list(signing_keys),
    }
    if revoked:
        body["revocations"] = dict(revoked)
    return _claims(subject, name, "account", body)


def user(
    subject: str,
    name: str,
    *,
    account: str,
    publish: Sequence[str],
    subscribe: Sequence[str],
    deny_publish: Sequence[str] = (),
    responds: bool = False,
    expires_at_s: int | None = None,
    max_subscriptions: int = NO_LIMIT,
) -> Claims:
    """Signed by a signing key of `account`. `responds`: one answer to whatever reply subject a request names, within
    10 minutes. An empty `publish` would mean everything to the server: it becomes a denial of everything."""
    body: Claims = {
        "issuer_account": account,
        "pub": _allowing(publish, deny_publish),
        "sub": _allowing(subscribe, ()),
        "subs": max_subscriptions,
        "data": NO_LIMIT,
        "payload": NO_LIMIT,
    }
    if responds:
        body["resp"] = {"max": 1, "ttl": 600 * 1_000_000_000}
    claims = _claims(subject, name, "user", body)
    return claims if expires_at_s is None else claims | {"exp": expires_at_s}


def creds(token: str, seed: str) -> str:
    """The text of a `.creds` file, as every NATS client reads it. It holds the user's private key."""
    return f"{_BEGIN}\n{token}\n{_END}\n\n{_BEGIN_SEED}\n{seed}\n{_END_SEED}\n"


def parse_creds(text: str) -> tuple[str, str]:
    """(JWT, seed) of a `.creds` file. Raises Malformed, with nothing of the text in it."""
    try:
        token = text.split(_BEGIN)[1].split("------END", maxsplit=1)[0].strip()
        seed = text.split(_BEGIN_SEED)[1].split("------END", maxsplit=1)[0].strip()
    except IndexError:
        raise Malformed("the credentials hold no user JWT and seed, as a .creds file does") from None
    if claims_of(token).get("nats", {}).get("type") != "user":
        raise Malformed("the credentials hold a JWT that is not a user's")
    return token, seed


def _claims(subject: str, name: str, kind: str, body: Claims) -> Claims:
    return {"sub": subject, "name": name, "nats": body | {"type": kind, "version": _VERSION}}


def _allowing(allowed: Sequence[str], denied: Sequence[str]) -> Claims:
    if not allowed:
        return {"deny": [">"]}
    return {"allow": list(allowed)} | ({"deny": list(denied)} if denied else {})


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
