"""A password as Postgres stores it, made on this side of the connection: what is sent, and may be logged, is no password.

The format is that of `pg_authid.rolpassword` (Postgres manual, 52.8) for SCRAM-SHA-256 (RFC 5802, RFC 7677).
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode

from sandreel_core.errors import Malformed

ITERATIONS = 4096  # Postgres' own `scram_iterations`, and the least that RFC 7677 allows
MIN_CHARS, MAX_CHARS = 12, 256


def verifier(password: str, salt: bytes) -> str:
    """Raises Malformed for a password that is too short or too long, or has other characters than printable ASCII:
    what those are normalised to (SASLprep) differs from client to client."""
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise Malformed(f"the password has {len(password)} characters; it may have {MIN_CHARS} to {MAX_CHARS}")
    if not (password.isascii() and password.isprintable()):
        raise Malformed("the password has a character that is not printable ASCII")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    stored_key = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    server_key = _hmac(salted, b"Server Key")
    return f"SCRAM-SHA-256${ITERATIONS}:{_text(salt)}${_text(stored_key)}:{_text(server_key)}"


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _text(value: bytes) -> str:
    return b64encode(value).decode()
