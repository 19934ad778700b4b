"""What `sandreel doctor` finds: one line a matter, and how to mend it. Other packages bring checks of their own."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

# Entry points of this group are coroutine functions (dsn: str) -> list[Check] that look at the views' database.
GROUP = "sandreel.checks"
Level = Literal["ok", "warn", "fail"]


class Check(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`mend` is what to do about it, in the imperative; empty when it is in order."""

    name: str
    level: Level
    found: str
    mend: str = ""
