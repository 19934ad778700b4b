"""Durations, instants and places, as people type them."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime

_PARTS = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")
_SECONDS = (86_400, 3600, 60, 1)
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")


def seconds(text: str) -> float:
    """`90`, `90s`, `5m`, `1h30m`, `2d` as seconds; for argparse's `type`."""
    match = _PARTS.fullmatch(text.strip())
    total = sum(float(part) * unit for part, unit in zip(match.groups(), _SECONDS, strict=True) if part) if match else 0
    if total <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration like 90, 90s, 5m, 1h30m or 2d")
    return total


def instant(text: str) -> datetime | None:
    """An ISO 8601 time (UTC unless it says otherwise), None for anything else."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def size(text: str) -> int:
    """`4096`, `64k`, `512m`, `4g` as bytes (1024 a step); for argparse's `type`."""
    match = re.fullmatch(r"(\d+)([kmg]?)(?:i?b)?", text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size like 4096, 64k, 512m or 4g")
    return int(match[1]) << 10 * ("", "k", "m", "g").index(match[2])


def variable(text: str) -> tuple[str, str]:
    """`NAME=VALUE`; for argparse's `type`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return variable_name(name), value


def variable_name(text: str) -> str:
    """As the contract's `EnvName`; for argparse's `type`."""
    if not _VARIABLE_NAME.match(text):
        raise argparse.ArgumentTypeError(
            f"{text[:80]!r} is no name of a variable: 1 to 128 letters, digits and _, the first of them no digit"
        )
    return text


def slug(text: str) -> str:
    """As the contract's `Slug`, a credential's name; for argparse's `type`."""
    if not _SLUG.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text[:80]!r} is no name of a credential: 1 to 64 characters of a-z 0-9 _ -, the first no _ or -"
        )
    return text
