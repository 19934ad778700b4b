"""A program on a terminal of a given size, whose screen is what a terminal emulator (pyte) makes of its bytes."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import pyte


class Glass:
    """`lines` is what can be seen now; `raw` every byte that was printed."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], *, columns: int = 80, rows: int = 24) -> None:
        self._argv = list(argv)
        self._environ = {**environ, "TERM": "xterm-256color"}
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._changed = asyncio.Event()
        self.raw = bytearray()

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def modes(self) -> tuple[int, int]:
        """Local and output flags of the terminal: whether keys are echoed, for one."""
        attributes = termios.tcgetattr(self._ours)
        return attributes[3], attributes[1]

    async def __aenter__(self) -> Glass:
        self._ours, theirs = pty.openpty()
        self._size(self._screen.columns, self._screen.lines)
        self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=self._environ,
            preexec_fn=lambda: os.login_tty(0),
        )
        os.close(theirs)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)

    async def press(self, keys: str) -> None:
        await asyncio.to_thread(os.write, self._ours, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        self._screen.resize(rows, columns)
        self._size(columns, rows)
        os.kill(self._process.pid, signal.SIGWINCH)

    async def until(self, what: str | Callable[[str], bool], *, timeout_s: float = 30) -> str:
        """The screen, as soon as it shows this. Fails with the screen as it is."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (what in self.text if isinstance(what, str) else what(self.text)):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"after {timeout_s:g} s still not {what!r} on\n{self.text}") from None
        return self.text

    async def wait(self, timeout_s: float = 20) -> int:
        """The program's exit code."""
        async with asyncio.timeout(timeout_s):
            return await self._process.wait()

    def _size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        try:
            data = os.read(self._ours, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the program has left the terminal
                raise
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._ours)
        self.raw += data
        self._stream.feed(data)
        self._changed.set()
