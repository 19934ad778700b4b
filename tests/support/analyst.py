"""Names and connections of an analyst's login."""

from __future__ import annotations

import secrets

PASSWORD = "correct-horse-battery"


def unique(stem: str) -> str:
    return f"{stem}_{secrets.token_hex(4)}"


def as_user(dsn: str, name: str, password: str = PASSWORD) -> str:
    return f"postgresql://{name}:{password}@{dsn.rpartition('@')[2]}"
