"""Key pairs: nkeys (Ed25519), by which NATS knows accounts and users, and the box that a secret travels in.

The one file that knows nkeys and PyNaCl. Neither is imported before a key is needed: it takes some 20 ms.
"""

from __future__ import annotations

import base64
import os
from typing import Literal

from sandreel_core.errors import Malformed

Kind = Literal["operator", "account", "user"]


class Key:
    """One nkey pair. It has no repr of its own, so that no seed gets into a log by a traceback."""

    def __init__(self, seed: str) -> None:
        """Raises Malformed when it is no seed."""
        import nkeys  # noqa: PLC0415 - see above

        try:
            self._pair = nkeys.from_seed(bytearray(seed.encode()))
            self.public: str = self._pair.public_key.decode()
        except (nkeys.NkeysError, ValueError):
            raise Malformed("what should be the seed of an nkey is none") from None
        self.seed = seed

    def sign(self, data: bytes) -> bytes:
        signature: bytes = self._pair.sign(data)
        return signature


def new_key(kind: Kind) -> Key:
    """A fresh pair."""
    import nkeys  # noqa: PLC0415

    prefix = {
        "operator": nkeys.PREFIX_BYTE_OPERATOR,
        "account": nkeys.PREFIX_BYTE_ACCOUNT,
        "user": nkeys.PREFIX_BYTE_USER,
    }[kind]
    return Key(nkeys.encode_seed(os.urandom(32), prefix).decode())


class SealingKey:
    """An X25519 pair: whoever knows `public` can seal, and only its owner can open."""

    def __init__(self) -> None:
        from nacl.public import PrivateKey  # noqa: PLC0415

        self._private = PrivateKey.generate()
        self.public = base64.b64encode(bytes(self._private.public_key)).decode()

    def open(self, sealed: str) -> bytes:
        """What `seal` made for this key. Raises Malformed when it was for another, or changed on its way."""
        from nacl.exceptions import CryptoError  # noqa: PLC0415
        from nacl.public import SealedBox  # noqa: PLC0415

        try:
            opened: bytes = SealedBox(self._private).decrypt(base64.b64decode(sealed, validate=True))
        except (CryptoError, ValueError):
            raise Malformed("a sealed value cannot be opened with this session's key") from None
        return opened


def seal(public: str, value: bytes) -> str:
    """Base64 of an anonymous box (libsodium's `crypto_box_seal`) for that key. Raises Malformed for what is no key."""
    from nacl.exceptions import CryptoError  # noqa: PLC0415
    from nacl.public import PublicKey, SealedBox  # noqa: PLC0415

    try:
        box = SealedBox(PublicKey(base64.b64decode(public, validate=True)))
    except (CryptoError, ValueError, TypeError):
        raise Malformed("what should be a session's sealing key is none") from None
    return base64.b64encode(box.encrypt(value)).decode()
