"""The demo's viewer: `sandreel attach --json` as a process that can be killed, and an exact account of what it saw."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import msgspec

_MAX_LINE_BYTES = 4 << 20  # a block is below the server's maximum payload of 1 MiB
_AGAIN_S = 0.3


class Account:
    """What has been seen of one exec: its bytes, whether ordinals and line numbers had holes, and how it ended."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.bytes = 0
        self.lines = 0
        self.last_n = 0
        self.cursor = ""
        self.holes: list[str] = []
        self.exit_code: int | None = None
        self.ended = False

    def take(self, item: dict[str, Any]) -> bytes:
        """Count one item of `attach --json`; the bytes of output in it."""
        if "n" not in item:
            if item["type"] == "missing":
                self.holes.append(str(item["why"]))
            return b""
        if item["n"] != self.last_n + 1:
            self.holes.append(f"event {item['n']} follows {self.last_n}")
        self.last_n, self.cursor = item["n"], item["cursor"]
        data = item["data"]
        if item["type"] in ("exec.exited", "exec.lost"):
            self.ended, self.exit_code = True, data.get("exit_code")
        if item["type"] != "exec.output":
            return b""
        body = base64.b64decode(data["base64"]) if data.get("base64") is not None else str(data["text"]).encode()
        if data["line"] != self.lines + 1:
            self.holes.append(f"line {data['line']} follows {self.lines}")
        self.lines += body.count(b"\n")
        self.bytes += len(body)
        self.digest.update(body)
        return body


class Viewer:
    """Runs `attach` until the exec has ended; killed, it attaches again behind the last event that it has shown whole."""

    def __init__(
        self, data: Path, session: str, exec_id: str, *, show: Callable[[bytes], None], complaints: TextIO
    ) -> None:
        self.account = Account()
        self.attached = 0
        self._command = [sys.executable, "-P", "-m", "sandreel_core.cli", "attach", session, exec_id, "--json"]
        self._command += ["--data", str(data)]
        self._show = show
        self._complaints = complaints
        self._child: asyncio.subprocess.Process | None = None
        self._progress = asyncio.Condition()

    async def run(self) -> None:
        """Until the exec's end has been seen."""
        while not self.account.ended:
            after = ["--after", self.account.cursor] if self.account.cursor else []
            child = self._child = await asyncio.create_subprocess_exec(
                *self._command, *after, stdout=asyncio.subprocess.PIPE, stderr=self._complaints, limit=_MAX_LINE_BYTES
            )
            self.attached += 1
            try:
                await self._read(child)
            finally:
                if child.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        child.kill()
                status = await child.wait()
            if status > 0 and not self.account.ended:
                await asyncio.sleep(_AGAIN_S)

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        if child.stdout is None:
            return
        while line := await child.stdout.readline():
            if not line.endswith(b"\n"):  # it was killed in the middle of a line: the cursor does not know of it
                return
            self._show(self.account.take(msgspec.json.decode(line)))
            async with self._progress:
                self._progress.notify_all()

    def kill(self) -> None:
        """SIGKILL."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()

    async def seen(self, lines: int) -> None:
        """Returns when so many lines have been seen, or the end."""
        async with self._progress:
            await self._progress.wait_for(lambda: self.account.lines >= lines or self.account.ended)
