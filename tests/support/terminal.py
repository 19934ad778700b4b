"""A program on a terminal of its own, for what only a keyboard can do."""

from __future__ import annotations

import asyncio
import errno
import os
import pty
import termios
from collections.abc import Mapping, Sequence
from types import TracebackType


class Terminal:
    """`text` is everything that was printed so far, stdout and stderr as a terminal mixes them."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self._argv = list(argv)
        self._environ = dict(environ)
        self._printed = bytearray()
        self._changed = asyncio.Event()

    @property
    def text(self) -> str:
        return self._printed.decode("utf-8", "replace").replace("\r\n", "\n")

    async def __aenter__(self) -> Terminal:
        self._keyboard, slave = pty.openpty()
        attributes = termios.tcgetattr(slave)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self._process = await asyncio.create_subprocess_exec(
            *self._argv, stdin=slave, stdout=slave, stderr=slave, env=self._environ, preexec_fn=lambda: os.login_tty(0)
        )
        os.close(slave)
        asyncio.get_running_loop().add_reader(self._keyboard, self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        asyncio.get_running_loop().remove_reader(self._keyboard)
        os.close(self._keyboard)

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
        self._changed.set()

    async def press_ctrl_c(self) -> None:
        await asyncio.to_thread(os.write, self._keyboard, b"\x03")

    async def until(self, phrase: str, timeout_s: float = 20) -> None:
        """Wait until the phrase is on the screen."""
        async with asyncio.timeout(timeout_s):
            while phrase not in self.text:
                self._changed.clear()
                await self._changed.wait()

    async def wait(self, timeout_s: float = 20) -> int:
        """The program's exit code."""
        async with asyncio.timeout(timeout_s):
            return await self._process.wait()
