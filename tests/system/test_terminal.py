"""`exec -it` and `attach -it` on real terminals, against everything real."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sandreel_core.client import Client
from sandreel_core.contract import exec as x
from tests.support.program import ENVIRON, argv
from tests.support.system import ORG, Site, until
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

TYPED_AT = ENVIRON | {"TERM": "xterm"}
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


@pytest.fixture
def data(site: Site) -> Path:
    return site.data


@pytest.fixture
def client(site: Site) -> Client:
    return site.client


@pytest_asyncio.fixture(loop_scope="module")
async def session(site: Site) -> AsyncIterator[str]:
    session = await site.session()
    yield session
    await site.client.destroy(ORG, session)


def program(data: Path, session: str, *options: str, cols: int = 80, rows: int = 24) -> Terminal:
    job = ["exec", "-it", session, "--id", "x1", *options, "--", sys.executable, "-I", "-S", "-c", PROGRAM]
    return Terminal(argv(data, *job), TYPED_AT, cols=cols, rows=rows)


def attached(data: Path, session: str, *options: str, cols: int = 80, rows: int = 24) -> Terminal:
    return Terminal(argv(data, "attach", "-it", session, "x1", *options), TYPED_AT, cols=cols, rows=rows)


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
        assert re.search(rf"sandreel attach -it {session} x1 --data {re.escape(str(data))}\n", first.text)
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
            await second.shows("others typed here within the last minute")
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


async def test_keys_are_kept_while_the_bus_is_away(site: Site, data: Path, session: str) -> None:
    async with program(data, session) as terminal:
        await terminal.shows("size 80x24")
        before = terminal.screen
        await site.kill_and_hold("nats")
        await terminal.press(b"abc")
        await terminal.shows("no connection: 3 typed bytes are kept")
        assert "typed" not in "".join(terminal.screen[:10])
        await site.release("nats")
        await terminal.shows("typed abc")
        await until(lambda: not any("sandreel" in row for row in terminal.screen), "the notice is wiped away")
        assert [row for row in terminal.screen if "typed" not in row] == [row for row in before if "typed" not in row][
            :23
        ]
        await terminal.press(b"q")
        assert await terminal.wait() == 6
        assert terminal.as_before


async def test_a_job_that_ends_while_nobody_looks_shows_its_last_screen(site: Site, data: Path, session: str) -> None:
    job = await site.client.exec(ORG, session, shell="printf 'one\\ntwo'; exit 3", exec="x1", tty=x.Terminal())
    await job.wait()

    async with attached(data, session) as terminal:
        assert await terminal.wait() == 3
        assert terminal.screen[:2] == ["one", "two"]
        assert terminal.as_before


@pytest.mark.parametrize(
    ("more", "phrase"),
    [
        (["exec", "-it", "S", "--json", "--", "true"], "--json"),
        (["exec", "-it", "S", "--detach-keys", "ctrl-", "--", "true"], "no key"),
        (["attach", "-it", "S", "plain"], "no terminal"),
        (["attach", "-it", "S", "nope"], "no exec nope"),
        (["attach", "-it", "S", "plain", "--after", "a:0:1"], "--after"),
        (["attach", "-t", "S", "plain"], "together"),
    ],
)
async def test_a_mistake_is_one_line(site: Site, data: Path, session: str, more: list[str], phrase: str) -> None:
    await site.client.exec(ORG, session, ["true"], exec="plain")

    async with Terminal(argv(data, *(session if word == "S" else word for word in more)), TYPED_AT) as terminal:
        assert await terminal.wait() == 2
        assert phrase in terminal.text
        assert terminal.text.strip().count("\n") == 0
        assert terminal.as_before


async def test_without_a_terminal_it_says_what_to_do(data: Path, session: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv(data, "exec", "-it", session, "--", "true"),
        env=TYPED_AT,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()

    assert process.returncode == 2
    assert b"leave -t out" in err
    assert err.count(b"\n") == 1


async def test_without_an_emulator_the_program_is_asked_to_draw_again(
    data: Path, session: str, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "pyte").mkdir()
    (tmp_path / "pyte" / "__init__.py").write_text("raise ImportError('not installed')\n")
    async with program(data, session) as first:
        await first.shows("size 80x24")
        await first.press(DETACH)
        assert await first.wait() == 130

    environ = TYPED_AT | {"PYTHONPATH": str(tmp_path)}
    async with Terminal(argv(data, "attach", "-it", session, "x1"), environ) as second:
        await second.shows("size 80x24")
        await second.press(b"q")
        assert await second.wait() == 6
    resizes = [item async for item in client.follow(ORG, session, "x1") if _is(item, x.Resized)]
    assert len(resizes) == 2
