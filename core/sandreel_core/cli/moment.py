"""Places in the log as people type them: a cursor, a time, or how long ago."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from sandreel_core.cli.duration import instant, seconds

if TYPE_CHECKING:
    from sandreel_core.client.moment import Moment

OPTIONS = ("--at", "--since", "--until")
METAVAR = "CURSOR|TIME"
HELP = "a cursor (of several partitions: with commas), a time (2026-01-31T12:00:00Z), or how long ago (-10m)"


def moment(text: str) -> Moment:
    """For argparse's `type`. Times are those of the stream's server; without an offset they are UTC."""
    from sandreel_core import clock
    from sandreel_core.contract.cursors import Cursors
    from sandreel_core.errors import Malformed

    if text.startswith("-"):
        try:
            return clock.now() - timedelta(seconds=seconds(text[1:]))
        except OverflowError as error:
            raise argparse.ArgumentTypeError(f"{text[:80]!r} is before the year 1") from error
    if text == "now":
        return clock.now()
    if (at := instant(text)) is not None:
        return at
    try:
        return Cursors.parse(text)
    except Malformed as error:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no {HELP.removeprefix('a ')}") from error


def joined(argv: Sequence[str]) -> list[str]:
    """`--since -10m` as `--since=-10m`: argparse takes what begins with a dash for an option."""
    result: list[str] = []
    for word in argv:
        if result and result[-1] in OPTIONS and len(word) > 1 and word[0] == "-" and word[1].isdigit():
            result[-1] += f"={word}"
        else:
            result.append(word)
    return result
