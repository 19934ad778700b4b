"""How long to wait before the next try."""

from __future__ import annotations

import random

FIRST_RETRY_S, LAST_RETRY_S = 0.05, 5.0


def backoff_s(failures: int, first_s: float = FIRST_RETRY_S) -> float:
    """How long to wait after so many failures in a row: doubling to at most 5 s, with jitter."""
    jitter = 0.5 + random.random() / 2  # noqa: S311
    return min(LAST_RETRY_S, first_s * float(2 ** min(failures, 16))) * jitter
