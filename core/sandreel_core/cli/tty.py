"""The terminal of this process: raw while it belongs to a job, and as it was before whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
import tty
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from sandreel_core.cli.descriptor import ready
from sandreel_core.errors import Misconfigured

_READ_BYTES = 64 * 1024
_WRITE_BYTES = 16 * 1024
# A terminal that takes nothing for so long (a suspended ssh) is left as it is when we go.
FAREWELL_WITHIN_S = 1.0


class Vanished(Exception):
    """The terminal has hung up."""


class Tty:
    """Opened anew, so that not blocking is ours alone: stdin's own description is shared with the shell."""

    def __init__(self, stdin: int = 0, stdout: int = 1) -> None:
        """Raises Misconfigured when stdin or this process's stdout is no terminal."""
        if not os.isatty(stdout):
            raise Misconfigured("-t -i need a terminal, and stdout is none: leave -t out to pipe it")
        try:
            path = os.ttyname(stdin)
        except OSError as error:
            raise Misconfigured("-t -i need a terminal, and stdin is none: leave -t out to pipe it") from error
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            raise Misconfigured(f"the terminal {path} cannot be opened: {os.strerror(error.errno or 0)}") from error

        self._writing = asyncio.Lock()

    def close(self) -> None:
        os.close(self._fd)

    @property
    def size(self) -> tuple[int, int]:
        """(columns, rows); 80 × 24 where the terminal does not say."""
        with contextlib.suppress(OSError):
            rows, cols, _, _ = struct.unpack("HHHH", fcntl.ioctl(self._fd, termios.TIOCGWINSZ, bytes(8)))
            if rows and cols:
                return cols, rows
        return 80, 24

    @contextmanager
    def raw(self) -> Iterator[None]:
        """Every key is a byte for the job, also Ctrl-C. Raises Vanished."""
        try:
            before = termios.tcgetattr(self._fd)
            self.make_raw()
        except termios.error as error:
            raise Vanished from error
        try:
            yield
        finally:
            with contextlib.suppress(termios.error):  # it has vanished
                # Not DRAIN, which waits for a terminal that may take nothing any more.
                termios.tcsetattr(self._fd, termios.TCSANOW, before)

    def make_raw(self) -> None:
        """Again, after somebody else had it (SIGCONT)."""
        tty.setraw(self._fd, termios.TCSANOW)

    async def read(self) -> AsyncGenerator[bytes, None]:
        """What is typed, as it comes. Raises Vanished at its end."""
        while True:
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                await ready(self._fd, writing=False)
                continue
            except OSError as error:
                raise Vanished from error
            if not data:
                raise Vanished
            yield data

    async def write(self, data: bytes) -> None:
        """Write everything, as the terminal takes it. Raises Vanished."""
        view = memoryview(data)
        async with self._writing:
            while view:
                try:
                    view = view[os.write(self._fd, view[:_WRITE_BYTES]) :]
                except BlockingIOError:
                    await ready(self._fd, writing=True)
                except OSError as error:
                    raise Vanished from error

    async def farewell(self, data: bytes) -> None:
        """Write, but for no longer than a second, and whatever has become of the terminal."""
        with contextlib.suppress(Vanished, TimeoutError):
            async with asyncio.timeout(FAREWELL_WITHIN_S):
                await self.write(data)
