"""Text in the cells of a terminal. What a job printed must not steer the terminal that shows it. Pure."""

from __future__ import annotations

import re
import unicodedata

# CSI, OSC (ended by BEL or ST) and the two-character escapes of ECMA-48.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_TAB = "    "


def spelt(text: str) -> str:
    """The text with everything that does not print (control, format and bidirectional characters) spelt out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain(line: str) -> str:
    """One line as a person would read it: escape sequences left out, what a carriage return overwrote forgotten, the
    rest `spelt`."""
    if line.isprintable():
        return line
    line = _ESCAPES.sub("", line).rstrip("\r")
    return spelt(line[line.rfind("\r") + 1 :].replace("\t", _TAB))


def columns_of(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """The text in at most so many columns; `…` says that something is missing."""
    if columns_of(text) <= width:
        return text
    kept, used = [], 0
    for c in text:
        used += columns_of(c)
        if used > width - 1:
            break
        kept.append(c)
    return "".join(kept) + "…" * (width > 0)


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """The text in exactly so many columns."""
    shown = cut(text, width)
    padding = " " * (width - columns_of(shown))
    return padding + shown if right else shown + padding
