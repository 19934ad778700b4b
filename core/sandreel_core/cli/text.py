"""What a job printed, names and amounts, as a terminal may be shown them. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

# SGR: colours and weights. Everything else that an escape begins is spelt out.
_STYLE = re.compile(r"\x1b\[[0-9;:]*m")
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")
# 8-bit colours that are legible on black and on white.
_COLOURS = (31, 32, 33, 34, 35, 36, 91, 92, 93, 94, 95, 96)


def plain(data: bytes) -> str:
    """UTF-8 with what is none replaced; a tab becomes blanks, styles are dropped, other control characters spelt out."""
    text = _STYLE.sub("", data.decode("utf-8", "replace")).removesuffix("\r")
    return _NOT_PLAIN.sub(_spelt, text) if _NOT_PLAIN.search(text) else text


def _spelt(match: re.Match[str]) -> str:
    c = match[0]
    if c == "\t":
        return "    "
    return c if c.isprintable() else c.encode("unicode_escape").decode()


def clean(text: str) -> str:
    """On one line, control characters spelt out: the name of a file must not steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def amount(count: float) -> str:
    """Bytes for eyes, 1024 a step: `17 B`, `1.5 KiB`, `20.0 MiB`."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} GiB"


def duration(seconds: float) -> str:
    """`0.3 s`, `12 s`, `3 min 05 s`, `1 h 02 min`, `3 d 4 h`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def coloured(text: str, name: str) -> str:
    """In a colour that is always the same for the same name."""
    return f"\x1b[{_COLOURS[sum(name.encode()) % len(_COLOURS)]}m{text}\x1b[0m"


def dimmed(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m"


def cut(text: str, columns: int) -> str:
    """At most so many columns of a terminal, the last one `…` where something is missing."""
    used = 0
    for at, c in enumerate(text):
        width = 0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        if used + width > columns - 1 and (used + width > columns or at < len(text) - 1):
            return text[:at] + "…"
        used += width
    return text


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def is_utf8(text: str) -> bool:
    """Whether a name or an argument is. Python keeps each byte that is not as a surrogate, which no message can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def field_line(name: str, value: Any) -> str:
    """One field of something that is shown field by field; what is a table of its own as `key=value, …`."""
    text = (
        ", ".join(f"{key}={_number(each)}" for key, each in value.items())
        if isinstance(value, dict)
        else _number(value)
    )
    return f"{name.replace('_', ' '):18} {clean(text)}"


def _number(value: Any) -> str:
    """86400 rather than 86400.0."""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)
