"""What a console does on a terminal, with an exec that says what the test wants, in the moment when it wants it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sandreel_core.cli.console import Console
from sandreel_core.cli.tty import Tty
from sandreel_core.client.items import CaughtUp, Entry, ExecItem, entry
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Envelope
from sandreel_core.errors import Misconfigured

pytestmark = pytest.mark.timeout(60)


def item(event: x.ExecEvent) -> ExecItem:
    at = datetime(2026, 11, 25, tzinfo=UTC)
    envelope = Envelope(specversion="1.0", id="1", source="/t", subject="s", time=at, data=event, n=1)
    made = entry(Cursor("e", 0, 1), 0, envelope)
    assert isinstance(made, Entry)
    return cast("ExecItem", made)


class Job:
    """In the place of a handle: `before` is what its log holds, `live` what comes then."""

    id = "x1"

    def __init__(self, *before: x.ExecEvent) -> None:
        self.before = list(before)
        self.live: asyncio.Queue[x.ExecEvent] = asyncio.Queue()
        self.resizes: list[tuple[int, int]] = []
        self.caught_up = asyncio.Semaphore(0)

    def keyboard(self) -> Any:
        async def run() -> None:
            await asyncio.Event().wait()

        return SimpleNamespace(waits_s=0.0, waiting=0, others=0, trouble=None, run=run)

    async def follow(self) -> AsyncGenerator[ExecItem, None]:
        for event in self.before:
            yield item(event)
        yield CaughtUp(Cursor("e", 0, 1))
        self.caught_up.release()
        while True:
            event = await self.live.get()
            self.before.append(event)
            yield item(event)
            self.caught_up.release()

    async def resize(self, cols: int, rows: int) -> None:
        self.resizes.append((cols, rows))


@contextmanager
def terminal(cols: int, rows: int) -> Iterator[tuple[Tty, int]]:
    """A console's end, and the screen's."""
    screen, stdin = pty.openpty()
    fcntl.ioctl(stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
    tty = Tty(stdin, stdin)
    try:
        yield tty, screen
    finally:
        tty.close()
        os.close(stdin)
        os.close(screen)


@asynccontextmanager
async def running(job: Job, tty: Tty, size: tuple[int, int] | None) -> AsyncIterator[tuple[Console, asyncio.Task[int]]]:
    console = Console(cast("Any", job), tty, "s1", detach=b"")
    run = asyncio.create_task(console.run(size=size))
    try:
        yield console, run
    finally:
        run.cancel()
        await asyncio.wait([run])


def started(cols: int, rows: int) -> x.Started:
    return x.Started(cwd="/", pid=1, tty=x.Terminal(cols=cols, rows=rows))


async def test_a_terminal_is_put_back_also_when_its_drawing_is_cut() -> None:
    """Left while most of a screen is still to be written, behind the alternate screen."""
    row = "".join(f"\x1b[{31 + n % 2}m#" for n in range(200))
    drawn = x.Output(stream="stdout", line=1, count=0, text="\x1b[?1049h" + row * 60)
    with terminal(200, 60) as (tty, screen):
        async with running(Job(started(200, 60), drawn), tty, None) as (_, run):
            seen = b""
            while b"\x1b[?1049h" not in seen:
                seen += await asyncio.to_thread(os.read, screen, 1024)
            os.kill(os.getpid(), signal.SIGTERM)
            behind = b""
            while b"sandreel: detached" not in behind:
                behind += await asyncio.to_thread(os.read, screen, 4096)
            assert await run == 128 + signal.SIGTERM
    assert len(behind) < 60_000, "the drawing was cut"
    assert b"\x1b[?1049l" in behind
    assert b"\x1b[4l" in behind


@pytest.mark.parametrize("fresh", [True, False])
async def test_drawing_anew_takes_no_size_away_from_another(fresh: bool) -> None:
    job = Job(started(80, 24))
    with terminal(80, 24) as (tty, _):
        async with running(job, tty, (80, 24) if fresh else None) as (console, _):
            await job.caught_up.acquire()
            while console._resized.is_set():
                await asyncio.sleep(0.01)
            await job.live.put(x.Resized(cols=100, rows=40))
            await job.caught_up.acquire()
            console._again.set()
            await job.caught_up.acquire()
            while console._resized.is_set():
                await asyncio.sleep(0.01)
    assert job.resizes == []


def test_it_takes_a_terminal_on_both_sides(tmp_path: Path) -> None:
    with terminal(80, 24) as (tty, _), (tmp_path / "log").open("w") as log:
        with pytest.raises(Misconfigured, match="stdout is none"):
            Tty(tty._fd, log.fileno())
