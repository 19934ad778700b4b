"""AES-256-GCM and RS256: the one file that knows `cryptography`.

PyNaCl, which the project has already, gives AES-GCM only where the processor does it. Nonces are random: 96 bits, and each key
of a value seals once; a key-encryption key seals far fewer than the 2^32 messages that NIST SP 800-38D allows with them.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sandreel_core.errors import Malformed

KEY_BYTES = 32
_NONCE_BYTES = 12
_MIN_RSA_BITS = 2048


def new_key() -> bytes:
    return os.urandom(KEY_BYTES)


def key_id(key: bytes) -> str:
    """16 hexadecimal digits by which a key is named, and from which nothing of it follows."""
    return hmac.digest(key, b"sandreel vault key id", hashlib.sha256)[:8].hex()


def encrypt(key: bytes, plain: bytes, context: str) -> bytes:
    """Nonce and ciphertext. What is sealed in one `context` opens in no other."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, context.encode())


def decrypt(key: bytes, sealed: bytes, context: str) -> bytes:
    """Raises Malformed when another key or another context sealed it, or it was changed."""
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
    except (InvalidTag, ValueError):
        raise Malformed("it does not open with this key") from None


def fingerprint(key: bytes, org: str, value: bytes) -> str:
    """See `vault.Vault.fingerprint`."""
    return hmac.digest(key, org.encode() + b"\0" + value, hashlib.sha256)[:8].hex()


def sign_rs256(pem: bytes, message: bytes) -> bytes:
    """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 §3.3). Raises Malformed for what is no RSA key in PEM of 2048 bits or more,
    and repeats nothing of it."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Malformed("what should be a private key in PEM is none") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < _MIN_RSA_BITS:
        raise Malformed(f"the private key is no RSA key of at least {_MIN_RSA_BITS} bits")
    return key.sign(message, PKCS1v15(), SHA256())
