"""Names and identifiers: their limits, and UUIDv7 made from a time and randomness that are passed in.

Pure: `clock.py` is where the time and the randomness come from.
"""

from __future__ import annotations

import re
import uuid

from sandreel_core.errors import Malformed

# `$` alone lets a trailing newline pass in Python; the look-ahead closes that and means nothing elsewhere.
ORG_PATTERN = r"^[A-Za-z0-9_-]{1,128}$(?!\n)"
ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$(?!\n)"
UUID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$(?!\n)"

_ORG = re.compile(ORG_PATTERN)
_ID = re.compile(ID_PATTERN)
_UUID = re.compile(UUID_PATTERN)


def check_org(value: str) -> str:
    """The organisation's name, unchanged. Raises Malformed when it is not 1 to 128 of `A-Za-z0-9_-`."""
    if not _ORG.search(value):
        raise Malformed(f"org {value[:140]!r} is not 1 to 128 characters of A-Z a-z 0-9 _ -")
    return value


def check_id(field: str, value: str) -> str:
    """A session's, exec's or turn's id, unchanged. Raises Malformed when it is not 1 to 64 of `A-Za-z0-9_-`."""
    if not _ID.search(value):
        raise Malformed(f"{field} {value[:80]!r} is not 1 to 64 characters of A-Z a-z 0-9 _ -")
    return value


def check_command_id(value: str) -> str:
    """A command's id, unchanged. Raises Malformed when it is not a lower-case UUIDv7 (RFC 9562)."""
    if not _UUID.search(value):
        raise Malformed(f"command id {value[:80]!r} is not a UUIDv7 in lower case")
    return value


def uuid7(unix_ms: int, random: bytes) -> str:
    """RFC 9562 §5.7: 48 bits of milliseconds, then 74 random bits out of `random` (10 bytes)."""
    if len(random) != 10:
        raise ValueError(f"uuid7 takes 10 random bytes, not {len(random)}")
    value = (unix_ms & (1 << 48) - 1) << 80 | int.from_bytes(random, "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def uuid7_unix_ms(value: str) -> int:
    """The milliseconds since 1970 that a UUIDv7 was made from. Raises Malformed for anything else."""
    return int(check_command_id(value).replace("-", "")[:12], 16)
