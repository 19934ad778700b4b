"""`exec -it` and `attach -it` on real terminals, against everything real."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sandreel_core.client import Client, ClientSettings
from sandreel_core.contract import exec as x
from sandreel_core.settings import load
from tests.support.system import until
from tests.support.terminal import Terminal

ORG = "default"
SANDREEL = [sys.executable, "-m", "sandreel_core.cli"]
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("SANDREEL_")} | {"TERM": "xterm"}
DETACH = b"\x10\x11"
# A full-screen program: it draws only what changes, shows its size and its keys in places, and ends with q.
PROGRAM = """
import os, signal, sys, termios, tty
def put(row, text): os.write(1, b"\\x1b[%d;3H%s\\x1b[K" % (row, text.encode()))
def size(*_): put(2, "size %dx%d" % os.get_terminal_size(0)[:2])
def interrupted(*_): put(3, "interrupted")
signal.signal(signal.SIGWINCH, size); signal.signal(signal.SIGINT, interrupted)
mode = termios.tcgetattr(0); mode[3] &= ~(termios.ICANON | termios.ECHO); termios.tcsetattr(0, termios.TCSANOW, mode)
os.write(1, b"before\\r\\n\\x1b[?1049h\\x1b[2J\\x1b[?2004h\\x1b[1;31m"); put(1, "a program"); os.write(1, b"\\x1b[0m"); size()
typed = b""
while b"q" not in typed:
    typed += os.read(0, 4096)
    put(4, "typed " + typed.decode())
os.write(1, b"\\x1b[?2004l\\x1b[?1049l"); sys.exit(6)
"""


def argv(data: Path, *args: str) -> list[str]:
    head, tail = (args[: args.index("--")], args[args.index("--") :]) if "--" in args else (args, ())
    return [*SANDREEL, *head, "--data", str(data), *tail]


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    data = Path(tempfile.mkdtemp(prefix="sandreel-terminal-"))
    try:
        subprocess.run(argv(data, "up", "--detach"), env=ENVIRON, check=True, timeout=60, capture_output=True)
        try:
            yield data
        finally:
            subprocess.run(argv(data, "down"), env=ENVIRON, check=True, timeout=60, capture_output=True)
    finally:
        shutil.rmtree(data)


@pytest.fixture
async def client(data: Path) -> AsyncIterator[Client]:
    async with Client.connect(load(ClientSettings, environ={}, path=data / "client.toml"), actor="tests") as client:
        yield client


@pytest.fixture
async def session(client: Client) -> AsyncIterator[str]:
    info = await client.create_session(ORG, timeout_s=60)
    yield info.session
    await client.destroy(ORG, info.session)


def program(data: Path, session: str, *options: str, cols: int = 80, rows: int = 24) -> Terminal:
    job = ["exec", "-it", session, "--id", "x1", *options, "--", sys.executable, "-I", "-S", "-c", PROGRAM]
    return Terminal(argv(data, *job), ENVIRON, cols=cols, rows=rows)


def attached(data: Path, session: str, *options: str, cols: int = 80, rows: int = 24) -> Terminal:
    return Terminal(argv(data, "attach", "-it", session, "x1", *options), ENVIRON, cols=cols, rows=rows)


async def test_a_program_has_this_terminal_and_its_exit_code_is_ours(data: Path, session: str) -> None:
    async with program(data, session, cols=90, rows=30) as terminal:
        await terminal.shows("size 90x30")
        assert terminal.raw
        await terminal.press(b"ab")
        await terminal.shows("typed ab")
        await terminal.press_ctrl_c()
        await terminal.shows("interrupted")
        terminal.resize(70, 20)
        await terminal.shows("size 70x20")
        await terminal.press(b"q")
        assert await terminal.wait() == 6
        assert terminal.as_before


async def test_detach_and_come_back_to_the_same_screen(data: Path, session: str, client: Client) -> None:
    async with program(data, session) as first:
        await first.shows("size 80x24")
        await first.press(b"ab")
        await first.shows("typed ab")
        before, cursor = first.screen, first.cursor
        await first.press(DETACH)
        assert await first.wait() == 130
        assert first.as_before
        assert re.search(rf"sandreel attach -it {session} x1\n", first.text)
        assert "\x1b[?1049l" in first.text
        assert "\x1b[?2004l" in first.text

    async with attached(data, session) as second:
        await second.shows("typed ab")
        assert (second.screen, second.cursor) == (before, cursor)
        assert "\x1b[?2004h" in second.text
        await second.press(b"c")
        await second.shows("typed abc")
        await second.press(b"q")
        assert await second.wait() == 6
        assert second.as_before
    resizes = [item async for item in client.follow(ORG, session, "x1") if _is(item, x.Resized)]
    assert resizes == [], "a terminal of the same size is told of none"


def _is(item: object, kind: type[object]) -> bool:
    return isinstance(getattr(getattr(item, "event", None), "data", None), kind)


async def test_a_terminal_of_another_size_gives_the_job_its_own(data: Path, session: str) -> None:
    async with program(data, session) as first:
        await first.shows("size 80x24")
        await first.press(DETACH)
        assert await first.wait() == 130

    async with attached(data, session, cols=60, rows=15) as second:
        await second.shows("size 60x15")
        await second.press(b"q")
        assert await second.wait() == 6


async def test_two_who_type_at_once_lose_no_key(data: Path, session: str) -> None:
    async with program(data, session) as first:
        await first.shows("size 80x24")
        async with attached(data, session) as second:
            await second.shows("size 80x24")
            await asyncio.gather(first.press(b"aaaaa"), second.press(b"bbbbb"))

            async def all_typed() -> bool:
                typed = next((row for row in first.screen if "typed" in row), "")
                return sorted(typed.split()[-1]) == list("aaaaabbbbb") if typed else False

            await until(all_typed, "all ten keys have arrived")
            await second.press(b"b")
            await second.shows("somebody else types here too")
            await second.shows("a program")
            await second.press(DETACH)
            assert await second.wait() == 130
        await first.press(b"q")
        assert await first.wait() == 6


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
async def test_a_signal_leaves_the_job_and_restores_the_terminal(
    data: Path, session: str, client: Client, number: int, code: int
) -> None:
    async with program(data, session) as terminal:
        await terminal.shows("size 80x24")
        terminal.kill(number)
        assert await terminal.wait() == code
        assert terminal.as_before
        assert "\x1b[?1049l" in terminal.text
        assert f"sandreel attach -it {session} x1" in terminal.text

    assert (await client.exec_info(ORG, session, "x1")).phase == "running"


async def test_a_terminal_that_vanishes_leaves_the_job(data: Path, session: str, client: Client) -> None:
    async with program(data, session) as terminal:
        await terminal.shows("size 80x24")
        terminal.hang_up()
        assert await terminal.wait() in (129, -signal.SIGHUP)

    assert (await client.exec_info(ORG, session, "x1")).phase == "running"
    async with attached(data, session) as again:
        await again.shows("a program")
        await again.press(b"q")
        assert await again.wait() == 6
