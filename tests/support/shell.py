"""`sandreel` as a user types it: real processes on a real server, whose roles are made up.

shell   runs it against an installation of its own, in which the org `default` has a session `s1` that is ready
"""

from __future__ import annotations

import asyncio
import io
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from sandreel_core.bus.port import Stream
from sandreel_core.cli import main
from sandreel_core.embedded.nats import NatsServer
from tests.support.fake_roles import fake_roles
from tests.support.nats import Connect
from tests.support.program import ENVIRON, SANDREEL, Done, argv, ended

STREAMS = [
    Stream("REEL-0", ("evt.0.>",), 1 << 30, metadata={"epoch": "e1"}),
    Stream("CMD", ("cmd.>",), 1 << 28, per_subject=1, discard_new_per_subject=True, metadata={"epoch": "e2"}),
]


class Shell:
    """Runs `sandreel` against one installation."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.environ = ENVIRON

    def argv(self, *args: str) -> list[str]:
        return argv(self.data, *args)

    async def here(self, *args: str) -> Done:
        """In this process, which is quicker: for what needs no terminal and no pipes."""
        out, err = io.StringIO(), io.StringIO()
        words = self.argv(*args)[len(SANDREEL) :]

        def run() -> int:
            with redirect_stdout(out), redirect_stderr(err):
                try:
                    return main(words)
                except SystemExit as end:
                    return int(end.code or 0)

        return Done(await asyncio.to_thread(run), out.getvalue().encode(), err.getvalue())

    @asynccontextmanager
    async def started(self, *args: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """It runs while the block is open, and no longer."""
        process = await asyncio.create_subprocess_exec(
            *self.argv(*args), stdout=subprocess.PIPE, env=self.environ, limit=1 << 20
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def __call__(self, *args: str, stdin: bytes | int | None = None) -> Done:
        source = subprocess.PIPE if isinstance(stdin, bytes) else subprocess.DEVNULL if stdin is None else stdin
        process = await asyncio.create_subprocess_exec(
            *self.argv(*args), stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environ
        )
        return await ended(process, stdin if isinstance(stdin, bytes) else None, timeout_s=30)


@pytest.fixture
async def shell(nats_server: NatsServer, connect_bus: Connect, tmp_path: Path) -> AsyncIterator[Shell]:
    bus = await connect_bus()
    await bus.ensure(STREAMS)
    lines = [
        "[bus]",
        f'nats_urls = ["{nats_server.url}"]',
        'user = "client"',
        f'password = "{nats_server.password("client")}"',
    ]
    (tmp_path / "client.toml").write_text("\n".join(lines) + "\n")
    async with fake_roles(bus):
        shell = Shell(tmp_path)
        assert (await shell.here("session", "create", "s1", "--owner", "user:ada")).code == 0
        yield shell
