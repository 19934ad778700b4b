"""Rows as people read them in a terminal, and as programs do. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sandreel_core.cli.cells import columns_of, fitted, spelt
from sandreel_core.json_line import harmless

_GAP = "  "
_MIN_CUT = 12


def cell(value: Any) -> str:
    """One line. Control characters are spelt out: what a job printed must not steer the terminal."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    text = value if isinstance(value, str) else json_text(value) if isinstance(value, list | dict) else str(value)
    return spelt(text)


def json_text(value: Any) -> str:
    """Times in ISO 8601, bytes as Postgres writes them (`\\x…`), numerics as text, so that none is rounded."""
    return harmless(json.dumps(value, default=_plain, ensure_ascii=False))


def lines(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, width: int | None = None) -> list[str]:
    """A header, a rule, and the rows, aligned; numbers to the right. With a `width` the widest column is cut,
    with `…`, until the row fits or every column is narrow."""
    numeric = [
        all(_is_number(row[i]) for row in rows if row[i] is not None) and bool(rows) for i in range(len(columns))
    ]
    texts = [[cell(value) for value in row] for row in rows]
    widths = [max([columns_of(name), *(columns_of(row[i]) for row in texts)]) for i, name in enumerate(columns)]
    if width is not None:
        widths = _fitted(widths, width - len(_GAP) * (len(widths) - 1))
    out = [_line(columns, widths, [False] * len(widths)), _GAP.join("─" * each for each in widths)]
    out += [_line(row, widths, numeric) for row in texts]
    return out


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _fitted(widths: list[int], room: int) -> list[int]:
    widths = list(widths)
    while sum(widths) > room and max(widths) > _MIN_CUT:
        widest = widths.index(max(widths))
        others = max([width for i, width in enumerate(widths) if i != widest], default=0)
        widths[widest] = max(_MIN_CUT, min(widths[widest] - 1, max(others, widths[widest] - (sum(widths) - room))))
    return widths


def _line(texts: Iterable[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = [fitted(*each[:2], right=each[2]) for each in zip(texts, widths, right, strict=True)]
    return _GAP.join(cells).rstrip()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, Decimal | UUID):
        return str(value)
    return str(value)
