"""JSON as it may be shown on a terminal, whatever is in it. Pure.

JSON spells out U+0000 to U+001F and leaves DEL and the C1 controls (U+0080 to U+009F) as they are, of which some begin
control sequences on a terminal, as ESC does. Here they are spelt out too (`\\u009b`): the value stays the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

_IN_TEXT = re.compile("[\x7f-\x9f]")
# The same in UTF-8, where C2 is always the first byte of two.
_IN_BYTES = re.compile(rb"\x7f|\xc2[\x80-\x9f]")
_encoder = msgspec.json.Encoder()


def json_line(value: Any) -> bytes:
    """A value (whatever msgspec encodes) on one line, in UTF-8, without a newline."""
    return harmless_bytes(_encoder.encode(value))


def json_lines(values: Sequence[Any]) -> bytes:
    """Each as `json_line` and a newline; many at once cost a fifth of that."""
    return harmless_bytes(_encoder.encode_lines(values))


def json_text(value: Any) -> str:
    """The same as text."""
    return json_line(value).decode()


def harmless_bytes(encoded: bytes) -> bytes:
    """JSON in UTF-8 with DEL and C1 spelt out; they can only stand within its strings."""
    if b"\x7f" not in encoded and b"\xc2" not in encoded:
        return encoded  # nearly always, and found out a hundred times faster than by the expression
    return _IN_BYTES.sub(_spelt_byte, encoded)


def harmless(text: str) -> str:
    """JSON with DEL and C1 spelt out."""
    return _IN_TEXT.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _spelt_byte(match: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % match[0][-1]
