"""Where wall-clock time and randomness come from. Pure rooms take both as arguments."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

from sandreel_core.ids import uuid7


def now() -> datetime:
    """The wall clock in UTC. For people and for deadlines; never for order (law 10)."""
    return datetime.now(UTC)


def new_id() -> str:
    """A fresh UUIDv7."""
    return uuid7(time.time_ns() // 1_000_000, os.urandom(10))


def new_token(prefix: str = "") -> str:
    """16 lower-case hexadecimal characters (64 bits), for epochs, execs and boots that nobody named."""
    return prefix + os.urandom(8).hex()
