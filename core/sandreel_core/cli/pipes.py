"""The process's own stdin, stdout and stderr as bytes, without ever blocking the event loop.

They are shared with the shell, so they are not made non-blocking: `select` is asked first, and what it
promises for a pipe is room for PIPE_BUF bytes. Regular files and /dev/null are always ready.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncGenerator

from sandreel_core.cli.descriptor import ready

STDIN, STDOUT, STDERR = 0, 1, 2
_PIECE_BYTES = select.PIPE_BUF
_PIECES_A_TURN = 64
_READ_BYTES = 64 * 1024  # one `exec.write_stdin`


async def write_all(fd: int, data: bytes) -> None:
    """Write everything. Raises BrokenPipeError when nobody reads any more."""
    view = memoryview(data)
    pieces = 0
    while view:
        if not select.select([], [fd], [], 0)[1]:
            await ready(fd, writing=True)
        view = view[os.write(fd, view[:_PIECE_BYTES]) :]
        pieces += 1
        if pieces % _PIECES_A_TURN == 0:
            await asyncio.sleep(0)


def forsake(fd: int) -> None:
    """Nobody takes what is written there any more. Python would complain once more when it flushes at the end."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, fd)
    os.close(null)


async def read_chunks(fd: int) -> AsyncGenerator[bytes, None]:
    """What comes in, at most 64 KiB at a time, until its end."""
    while True:
        if not select.select([fd], [], [], 0)[0]:
            await ready(fd, writing=False)
        chunk = os.read(fd, _READ_BYTES)
        if not chunk:
            return
        yield chunk
