"""What was spent, by calendar month (UTC), kept so that a clock which is wrong for a while neither forgets it nor gives it anew. Pure.

A month's budget counts what was spent in it and in every later one. So a clock that goes back over a month's end, or to 1970, finds all
that was spent before it did; and what was spent while it was ahead counts until then, and hides nothing of the months between.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

# Beside the present one. There is one more for each month in which a clock was wrong: three such mistakes are remembered.
MAX_OTHERS = 3
T = TypeVar("T")


def month_of(now: datetime) -> str:
    """`2026-11`. They sort as they follow each other."""
    return f"{now:%Y-%m}"


def counting(months: Mapping[str, T], now: datetime) -> list[T]:
    """Of the months that count now."""
    present = month_of(now)
    return [each for month, each in months.items() if month >= present]


def kept(months: Mapping[str, T], now: datetime) -> dict[str, T]:
    """Without those that nobody will ask for: the present one, and of the others the newest."""
    present = month_of(now)
    others = sorted(month for month in months if month != present)[-MAX_OTHERS:]
    return {month: each for month, each in months.items() if month == present or month in others}
