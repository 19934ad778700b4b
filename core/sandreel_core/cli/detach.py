"""The keys that leave a terminal without touching what runs in it. Pure."""

from __future__ import annotations

from sandreel_core.errors import Malformed

DEFAULT = "ctrl-p,ctrl-q"  # docker's, which fingers know
_CTRL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"  # by their codes, from 0
_MAX_KEYS = 8


def parse(text: str) -> bytes:
    """`ctrl-p,ctrl-q` or `ctrl-],d` as bytes; `none` for no such keys. Raises Malformed."""
    if text.strip().lower() == "none":
        return b""
    keys = text.split(",")
    if len(keys) > _MAX_KEYS:
        raise Malformed(f"--detach-keys takes at most {_MAX_KEYS} keys, not {len(keys)}")
    return bytes(_key(key.strip(), text) for key in keys)


def _key(key: str, text: str) -> int:
    name = key.lower()
    if name.startswith("ctrl-") and len(name) == len("ctrl-") + 1 and name[-1] in _CTRL:
        return _CTRL.index(name[-1])
    if len(key) == 1 and key.isascii() and key.isprintable():
        return ord(key)
    raise Malformed(f"--detach-keys {text[:80]!r}: {key[:20]!r} is no key like a, ctrl-p or ctrl-]")


class DetachKeys:
    """Watches what is typed for the sequence. What might be its beginning is held until the next key decides."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def take(self, typed: bytes) -> tuple[bytes, bool]:
        """(what is to be typed, whether the sequence was pressed: what is behind it is nobody's)."""
        if not self._keys:
            return typed, False
        held = self._held + typed
        at = held.find(self._keys)
        if at >= 0:
            self._held = b""
            return held[:at], True
        # The longest end of what was typed that the sequence begins with.
        keep = next(n for n in range(min(len(self._keys) - 1, len(held)), -1, -1) if held.endswith(self._keys[:n]))
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep], False
