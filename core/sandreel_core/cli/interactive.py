"""`-i`, `-t` and `--detach-keys`, and the terminal that they lead to."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TextIO

from sandreel_core.cli import detach
from sandreel_core.errors import Malformed

if TYPE_CHECKING:
    from sandreel_core.cli.tty import Tty

# What any machine has a terminfo entry for. Others (kitty, ghostty …) are named xterm-256color, which they understand.
_TERMS = frozenset({"xterm", "xterm-256color", "screen", "screen-256color", "tmux", "tmux-256color", "linux", "vt100"})


def terminal_options(parser: Any) -> None:
    group = parser.add_argument_group("a terminal")
    group.add_argument("-i", "--interactive", action="store_true", help="what is typed here reaches the job")
    group.add_argument("-t", "--tty", action="store_true", help="the job has a terminal; with -i it is this one")
    group.add_argument(
        "--detach-keys",
        metavar="KEYS",
        default=detach.DEFAULT,
        help=f"leave it running ({detach.DEFAULT}): keys like a, ctrl-a, ctrl-], divided by commas, or `none`",
    )


@asynccontextmanager
async def opened(args: argparse.Namespace) -> AsyncIterator[tuple[Tty, bytes]]:
    """This process's terminal and the detach keys. Raises Malformed, Misconfigured without a terminal."""
    from sandreel_core.cli.tty import Tty

    keys = detach.parse(args.detach_keys)
    if args.json:
        raise Malformed("--json has no place in a terminal: leave out -it, or --json")
    tty = Tty()
    try:
        yield tty, keys
    finally:
        tty.close()


def has_colours(out: TextIO) -> bool:
    """Whether a person wants to see colours there (https://no-color.org)."""
    return draws(out) and not os.environ.get("NO_COLOR")


def draws(out: TextIO) -> bool:
    """Whether it is a terminal that obeys control sequences; an editor's shell window says TERM=dumb, and would show them."""
    return out.isatty() and os.environ.get("TERM") != "dumb"


def window_size() -> tuple[int, int]:
    """(columns, rows) of whatever terminal this process has; else 80 × 24."""
    for fd in (0, 1, 2):
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        if size.columns and size.lines:
            return size.columns, size.lines
    return 80, 24


def terminal_type() -> dict[str, str]:
    """TERM as it is here, since the job's sequences end here."""
    name = os.environ.get("TERM", "")
    return {"TERM": name if name in _TERMS else "xterm-256color"}
