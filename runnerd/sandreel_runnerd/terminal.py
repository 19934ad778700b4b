"""Pseudo-terminals: one per exec that asked for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import termios

END_OF_INPUT = b"\x04"  # Ctrl-D, what VEOF is on a new terminal


def open_terminal(cols: int, rows: int) -> tuple[int, int]:
    """(master, slave) of a new terminal of this size, both closed on exec. Raises OSError."""
    master, slave = pty.openpty()
    resize(master, cols, rows)
    return master, slave


def resize(master: int, cols: int, rows: int) -> None:
    """Also sends SIGWINCH to the foreground group. A terminal that hung up is left as it is."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def foreground_group(master: int) -> int | None:
    """The process group that has the terminal."""
    try:
        group = os.tcgetpgrp(master)
    except OSError:
        return None
    return group if group > 1 else None
