"""A program on a terminal of its own, for what only a keyboard can do."""

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
from typing import TypeVar

import pyte

_T = TypeVar("_T")


class Terminal:
    """`text` is everything that was printed so far, stdout and stderr as a terminal mixes them; `screen` the rows that
    a person sees now, by pyte, which knows no alternate screen: what it covers stays covered."""

    def __init__(
        self, argv: Sequence[str], environ: Mapping[str, str], *, cols: int = 80, rows: int = 24, echo: bool = False
    ) -> None:
        self._size = (cols, rows)
        self._echo = echo
        self._pyte = pyte.Screen(cols, rows)
        self._stream = pyte.ByteStream(self._pyte)
        self._argv = list(argv)
        self._environ = dict(environ)
        self._printed = bytearray()
        self._changed = asyncio.Event()

    @property
    def text(self) -> str:
        return self._printed.decode("utf-8", "replace").replace("\r\n", "\n")

    @property
    def printed(self) -> bytes:
        """Every byte of it."""
        return bytes(self._printed)

    async def __aenter__(self) -> Terminal:
        self._keyboard, slave = pty.openpty()
        attributes = termios.tcgetattr(slave)
        if not self._echo:
            attributes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self._before = termios.tcgetattr(slave)
        self._set_size(*self._size)
        self._process = await asyncio.create_subprocess_exec(
            *self._argv, stdin=slave, stdout=slave, stderr=slave, env=self._environ, preexec_fn=_begin
        )
        self._slave = slave
        asyncio.get_running_loop().add_reader(self._keyboard, self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self.hang_up()

    def hang_up(self) -> None:
        """The window is closed: SIGHUP, and nothing to read or write any more."""
        if self._keyboard >= 0:
            asyncio.get_running_loop().remove_reader(self._keyboard)
            os.close(self._slave)
            os.close(self._keyboard)
            self._keyboard = -1

    def _read(self) -> None:
        try:
            data = os.read(self._keyboard, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the program has left the terminal
                raise
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._keyboard)
        self._printed += data
        self._stream.feed(data)
        self._changed.set()

    async def press_ctrl_c(self) -> None:
        await self.press(b"\x03")

    async def press(self, keys: bytes | str) -> None:
        await asyncio.to_thread(os.write, self._keyboard, keys.encode() if isinstance(keys, str) else keys)

    def resize(self, cols: int, rows: int) -> None:
        """Drag the window: the program gets SIGWINCH."""
        self._pyte.resize(rows, cols)
        self._set_size(cols, rows)

    def _set_size(self, cols: int, rows: int) -> None:
        fcntl.ioctl(self._keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def kill(self, number: int) -> None:
        os.kill(self._process.pid, number)

    @property
    def raw(self) -> bool:
        """Whether every key is a byte for the program."""
        return not termios.tcgetattr(self._slave)[3] & termios.ICANON

    @property
    def as_before(self) -> bool:
        """Whether the terminal's settings are what they were before the program began."""
        return termios.tcgetattr(self._slave) == self._before

    @property
    def screen(self) -> list[str]:
        return [row.rstrip() for row in self._pyte.display]

    @property
    def cursor(self) -> tuple[int, int]:
        """(column, row) from 0."""
        return self._pyte.cursor.x, self._pyte.cursor.y

    async def shows(self, what: str | Callable[[str], bool], timeout_s: float = 30) -> str:
        """The screen, its rows as lines, as soon as a person sees this on it. Fails with the screen as it is."""

        def seen() -> str | None:
            text = "\n".join(self.screen)
            return text if (what in text if isinstance(what, str) else what(text)) else None

        return await self._wait_for(seen, timeout_s, what)

    async def until(self, phrase: str, timeout_s: float = 20) -> None:
        """Wait until the phrase has been printed."""
        await self._wait_for(lambda: phrase in self.text or None, timeout_s, phrase)

    async def _wait_for(self, found: Callable[[], _T | None], timeout_s: float, what: object) -> _T:
        try:
            async with asyncio.timeout(timeout_s):
                while (found_now := found()) is None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            screen = "\n".join(self.screen)
            raise AssertionError(f"after {timeout_s:g} s still not {what!r} on\n{screen}") from None
        return found_now

    async def wait(self, timeout_s: float = 20) -> int:
        """The program's exit code."""
        async with asyncio.timeout(timeout_s):
            return await self._process.wait()


def _begin() -> None:
    """In the program's process. As a login does it: the tests may have been started by nohup, which has SIGHUP ignored."""
    os.login_tty(0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
