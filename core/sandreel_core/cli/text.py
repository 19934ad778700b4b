"""Names and amounts as a terminal may be shown them. Pure."""

from __future__ import annotations


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
