"""Readers of one exec that keep an account of every byte, ordinal and line number that they were given.

Watcher   a client in this process; it can be made slow
Attached  `sandreel attach --json` as a process of its own, which is killed and attached again from its saved cursor
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from sandreel_core.client import Client, Ended, Gap, Output
from sandreel_core.client.items import CaughtUp
from sandreel_core.errors import Unavailable

_MAX_LINE_BYTES = 8 << 20
_AGAIN_S = 0.2


class Account:
    """What one reader has been given. `wrong` names everything that must not be."""

    def __init__(self) -> None:
        self.data = {"stdout": bytearray(), "stderr": bytearray()}
        self.next_line = {"stdout": 1, "stderr": 1}
        self.last_n = 0
        self.cursor = ""
        self.ends: list[str] = []
        self.exit_code: int | None = None
        self.wrong: list[str] = []
        self._progress = asyncio.Condition()

    @property
    def ended(self) -> bool:
        return bool(self.ends)

    @property
    def size(self) -> int:
        return sum(map(len, self.data.values()))

    def event(self, n: int, cursor: str) -> None:
        if self.ends:
            self.wrong.append(f"event {n} follows the end")
        if n != self.last_n + 1:
            self.wrong.append(f"event {n} follows {self.last_n}")
        if self.cursor and int(cursor.rpartition(":")[2]) <= int(self.cursor.rpartition(":")[2]):
            self.wrong.append(f"cursor {cursor} follows {self.cursor}")
        self.last_n, self.cursor = n, cursor

    def output(self, stream: str, body: bytes, line: int, count: int, eol: bool) -> None:
        if line != self.next_line[stream]:
            self.wrong.append(f"{stream} line {line} follows {self.next_line[stream]}")
        if count != body.count(b"\n") or eol != body.endswith(b"\n"):
            self.wrong.append(f"the block at n {self.last_n} is wrong about its newlines")
        self.next_line[stream] = line + count
        self.data[stream] += body

    def end(self, kind: str, exit_code: int | None) -> None:
        self.ends.append(kind)
        self.exit_code = exit_code

    async def moved(self) -> None:
        async with self._progress:
            self._progress.notify_all()

    async def seen(self, least_bytes: int, *, timeout_s: float = 45) -> None:
        """As soon as so many bytes have been seen, or the end."""
        async with asyncio.timeout(timeout_s), self._progress:
            await self._progress.wait_for(lambda: self.size >= least_bytes or self.ended)

    async def more(self, least_bytes: int = 100_000, *, timeout_s: float = 45) -> None:
        """As soon as so many more bytes have been seen than now, or the end."""
        await self.seen(self.size + least_bytes, timeout_s=timeout_s)

    async def over(self, *, timeout_s: float = 60) -> None:
        """As soon as the end has been seen."""
        async with asyncio.timeout(timeout_s), self._progress:
            await self._progress.wait_for(lambda: self.ended)


class Watcher(Account):
    """Follows in this process. While `go` is not set it takes nothing."""

    def __init__(self, client: Client, org: str, session: str, exec_id: str) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.go.set()
        self.caught_up = 0
        self._follow = partial(client.follow, org, session, exec_id)

    async def run(self) -> None:
        """Until the end. Who begins just when the server is killed is told so, and begins again."""
        while True:
            try:
                return await self._read()
            except Unavailable:
                if self.last_n:
                    raise
                await asyncio.sleep(_AGAIN_S)

    async def _read(self) -> None:
        async with aclosing(self._follow()) as items:
            async for item in items:
                await self.go.wait()
                if isinstance(item, CaughtUp):
                    self.caught_up += 1
                    continue
                if isinstance(item, Gap):
                    self.wrong.append(f"a gap: {item.why}")
                    continue
                self.event(item.n, str(item.cursor))
                if isinstance(item, Output):
                    self.output(item.stream, item.data, item.line, item.count, item.eol)
                if isinstance(item, Ended):
                    self.end(item.event.type, item.exit_code)
                await self.moved()


class Attached(Account):
    """A viewer process. `kill` is SIGKILL; it is attached again behind the last event that it has shown whole."""

    def __init__(self, data: Path, org: str, session: str, exec_id: str) -> None:
        super().__init__()
        self.attached = 0
        self._command = [sys.executable, "-P", "-m", "sandreel_core.cli", "attach", session, exec_id, "--json"]
        self._command += ["--data", str(data), "--org", org]
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith("SANDREEL_")}
        self._child: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Until the end."""
        while not self.ended:
            after = ["--after", self.cursor] if self.cursor else []
            child = self._child = await asyncio.create_subprocess_exec(
                *(*self._command, *after),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=self._environ,
                limit=_MAX_LINE_BYTES,
            )
            self.attached += 1
            await self.moved()
            try:
                await self._read(child)
            finally:
                self.kill()
                status = await child.wait()
            if status > 0 and not self.ended:
                await asyncio.sleep(_AGAIN_S)  # the server is away: it could not even begin

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None
        while (line := await child.stdout.readline()).endswith(b"\n"):  # half a line: killed while it wrote
            self._take(msgspec.json.decode(line))
            await self.moved()

    def _take(self, item: dict[str, Any]) -> None:
        if "n" not in item:
            if item["type"] == "missing":
                self.wrong.append(f"a gap: {item['why']}")
            return
        self.event(item["n"], item["cursor"])
        data = item["data"]
        if item["type"] == "exec.output":
            body = base64.b64decode(data["base64"]) if data.get("base64") is not None else data["text"].encode()
            self.output(data["stream"], body, data["line"], data["count"], data.get("eol", False))
        elif item["type"] in ("exec.exited", "exec.lost"):
            self.end(item["type"], data.get("exit_code"))

    async def killed(self, *, timeout_s: float = 45) -> None:
        """SIGKILL; returns when it is attached again. What it had written until then is still read."""
        before = self.attached
        self.kill()
        async with asyncio.timeout(timeout_s), self._progress:
            await self._progress.wait_for(lambda: self.attached > before or self.ended)

    def kill(self) -> None:
        # Not the child's own `kill`, which reaps one that has just ended, and asyncio then misses its status.
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child.pid, signal.SIGKILL)


@asynccontextmanager
async def reading(*readers: Watcher | Attached) -> AsyncGenerator[None, None]:
    """They read while the block is open; at its end they must all have seen the end."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(reader.run()) for reader in readers]
        try:
            yield
            for reader in readers:
                await reader.over()
        finally:
            for task in tasks:
                task.cancel()
