"""The id of the one session that an owner has in an org: the same for whoever works it out. Pure.

Behaviour §4.2: a user's is `usr-<id, cut to 24>-<64-bit FNV-1a of org:id>`, a thread's `thr-<id>`. What an id may not hold
stands as `_`, so that ids of any kind (mail addresses, numbers with colons) have a session too.
"""

from __future__ import annotations

import re

from sandreel_core.contract.message import Owner
from sandreel_core.errors import Malformed
from sandreel_core.ids import check_id, check_org

_CUT = 24
_MAX_ID = 64  # `ids.ID_PATTERN`
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_-]")
# FNV-1a, 64 bits (draft-eastlake-fnv, §6): offset basis and prime.
_FNV_OFFSET, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


def session_of(org: str, owner: Owner) -> str:
    """The session id, 1 to 64 of `A-Za-z0-9_-`. Raises Malformed for an org that is none.

    Owners whose ids differ only behind the cut, or in what is not allowed, differ by the hash. An owner of another type than
    `user` and `thread` has its type in front, cut to 16, and in the hash.
    """
    check_org(org)
    if owner.type == "user":
        return _hashed("usr", owner.id, f"{org}:{owner.id}")
    if owner.type == "thread":
        plain = f"thr-{owner.id}"
        if len(plain) <= _MAX_ID and not _NOT_ALLOWED.search(owner.id):
            return plain
        return _hashed("thr", owner.id, f"{org}:{owner.id}")
    return _hashed(owner.type[:16], owner.id, f"{org}:{owner.type}:{owner.id}")


def parse_owner(text: str) -> Owner:
    """`user:ada` as an owner. Raises Malformed, in one line that says what it has to look like."""
    kind, colon, name = text.partition(":")
    if not colon or not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", kind) or not 1 <= len(name) <= 256:
        raise Malformed(f"{text[:80]!r} is not TYPE:ID, for example user:ada (ID: at most 256 characters)")
    return Owner(type=kind, id=name)


def fnv1a_64(data: bytes) -> int:
    found = _FNV_OFFSET
    for byte in data:
        found = (found ^ byte) * _FNV_PRIME & 0xFFFF_FFFF_FFFF_FFFF
    return found


def _hashed(prefix: str, id: str, whole: str) -> str:
    short = _NOT_ALLOWED.sub("_", id[:_CUT])
    return check_id("session", f"{prefix}-{short}-{fnv1a_64(whole.encode()):016x}")
