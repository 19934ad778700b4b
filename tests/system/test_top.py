"""`sandreel top` in a real terminal, against everything real."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
import pytest_asyncio

from tests.support.system import ORG, Site
from tests.support.terminal import Terminal

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("SANDREEL_") and name != "NO_COLOR"}
ENVIRON |= {"TERM": "xterm-256color"}
# Numbered lines for ever; a title-setting escape and a bell in each, which must not reach the terminal.
TICKS = r'i=0; while :; do i=$((i+1)); printf "tick %d \033]0;owned\a\033[2J\n" $i; sleep 0.1; done'
LEFT_ALTERNATE_SCREEN = b"\x1b[?1049l"


def argv(site: Site, *args: str) -> list[str]:
    return [sys.executable, "-m", "sandreel_core.cli", "top", "--data", str(site.data), *args]


@pytest_asyncio.fixture(loop_scope="module")
async def session(site: Site) -> AsyncIterator[str]:
    """A session with one exec that prints on and one that has failed; stopped when the test is over."""
    name = await site.session("top")
    await site.client.exec(ORG, name, shell=TICKS, exec="ticks")
    await site.client.run(ORG, name, shell="echo no such thing >&2; exit 3")
    yield name
    await site.client.stop(ORG, name)


async def snapshot(site: Site, *args: str) -> list[dict[str, object]]:
    process = await asyncio.create_subprocess_exec(
        *argv(site, "--once", "--json", *args), env=ENVIRON, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return [msgspec.json.decode(line) for line in out.splitlines()]


async def test_once_prints_what_is_there(site: Site, session: str) -> None:
    status, *rows = await snapshot(site, "--filter", f"name:{session}", "--wait", "3s")
    assert (status["type"], status["away_s"], status["loading"]) == ("status", None, False)
    assert {fill["stream"] for fill in status["fills"]} == {"REEL-0", "CMD"}  # type: ignore[attr-defined]
    mine, *execs = rows
    assert (mine["session"], mine["state"], mine["execs"], mine["live_execs"]) == (session, "ready", 2, 1)
    assert mine["spool_bytes"] == 0
    by_state = {row["state"]: row for row in execs}
    assert by_state["exited"]["ending"] == "3"
    assert by_state["running"]["exec"] == "ticks"
    assert 3 < float(str(by_state["running"]["lines_per_s"])) < 20
    assert str(by_state["running"]["last_line"]).startswith("tick ")


async def test_a_log_that_rests_is_not_behind(site: Site) -> None:
    await site.client.stop(ORG, await site.session("rests"))
    status, *_ = await snapshot(site, "--wait", "2s")
    assert (status["behind_s"], status["behind_events"], status["missing"]) == (0, 0, 0)


@pytest.mark.timeout(180)
async def test_a_real_terminal_sorts_filters_opens_scrubs_and_is_given_back(site: Site, session: str) -> None:
    async with Terminal(argv(site), ENVIRON) as terminal:
        await terminal.shows("● live")
        await terminal.shows(lambda text: "ticks" in text and "tick " in text and "exited 3" in text)
        assert all(len(line) <= 80 for line in terminal.screen)

        await terminal.press("r")  # by state the other way round
        await terminal.shows(lambda text: re.search("STATE +▼", text) is not None)
        await terminal.press("s")
        await terminal.shows("LINES/S▼")

        await _filter(terminal, "state:running /^top-[0-9]+ ticks/")
        await terminal.shows(lambda text: "ticks" in text and "exited 3" not in text)
        await _filter(terminal, "/(/", says="is no expression of RE2")
        await _filter(terminal, "name:nobody")
        await terminal.shows("nothing is like this filter")
        await _filter(terminal, f"name:{session}")
        await terminal.shows(lambda text: "ticks" in text and "exited 3" in text)

        await terminal.press("t")  # execs alone; the one that prints is first by rate
        await terminal.shows(lambda text: re.search(r"^ticks", text, re.MULTILINE) is not None)
        await terminal.press("\x1b[H\r")
        await terminal.shows(lambda text: f"{ORG} / {session} / ticks" in text and " live " in text)
        live = _line(await terminal.shows(lambda text: _line(text) >= 20))
        await terminal.shows(lambda text: _line(text) > live)

        await _go(terminal, "+7")
        seven = [f"tick {number}" for number in range(1, 8)]
        await terminal.shows(lambda text: _line(text) == 7 and _ticks(text) == seven)
        await terminal.press("\x1b[A")  # up: a line back
        await terminal.shows(lambda text: _line(text) == 6 and "tick 7" not in text)
        await terminal.press("\x1b[D")  # left: an event back, which is a line if the machine was not too busy
        await terminal.shows(lambda text: 0 < _line(text) < 6)
        await _go(terminal, "1%1")
        await terminal.shows("is none of 45%")
        await terminal.press("l")
        await terminal.shows(lambda text: _line(text) > live)

        await terminal.press("q")
        await terminal.shows("LINES/S▼")
        terminal.resize(120, 30)
        await terminal.shows(lambda text: "QUIET" in text and len(text.splitlines()) == 30)
        await terminal.press("q")
        assert await terminal.wait() == 0
        assert terminal.as_before
        assert LEFT_ALTERNATE_SCREEN in terminal.printed
        assert b"\x1b]0;owned" not in terminal.printed


async def test_keys_that_come_all_at_once_are_typed_one_after_the_other(site: Site, session: str) -> None:
    """Pasted without brackets, or typed ahead: each key is for whom the one before it has left it to."""
    async with Terminal(argv(site), ENVIRON) as terminal:
        await terminal.shows(lambda text: "● live" in text and "ticks" in text)
        await terminal.press("rr/name:nobody\r")
        await terminal.shows("nothing is like this filter")
        await terminal.shows("filter: name:nobody")
        await terminal.press(f"/\x15name:{session}\rt\x1b[H\rg+3\r")  # filter, execs alone, the first, its third line
        await terminal.shows(lambda text: f"{ORG} / {session} / ticks" in text and _line(text) == 3)
        await terminal.press("qqq")
        assert await terminal.wait() == 0


async def test_what_is_pasted_is_for_whoever_asks(site: Site, session: str) -> None:
    async with Terminal(argv(site), ENVIRON) as terminal:
        await terminal.shows("● live")
        await terminal.press("/\x1b[200~name:nobody\x1b[201~\r")
        await terminal.shows("filter: name:nobody")
        await terminal.press("\x1b[200~qqq\x1b[201~/\x15name:some\r")  # no keys, for the table
        await terminal.shows("filter: name:some")
        await terminal.press("q")
        assert await terminal.wait() == 0


async def _filter(terminal: Terminal, text: str, *, says: str = "") -> None:
    await terminal.press("/")
    await terminal.shows("keep the filter")
    await terminal.press("\x15")
    await terminal.shows("word, /regex/")
    await terminal.press(text)
    await terminal.shows(says or text)
    await terminal.press("\r")
    await terminal.shows("↵ open")


async def _go(terminal: Terminal, place: str) -> None:
    await terminal.press("g")
    await terminal.shows("go there")
    await terminal.press(place)
    await terminal.shows(place)
    await terminal.press("\r")
    await terminal.shows(lambda text: "go there" not in text)


def _ticks(text: str) -> list[str]:
    """The lines of the exec that the player shows."""
    return [line.strip() for line in text.split("\n")[2:-2] if line.strip().startswith("tick")]


def _line(text: str) -> int:
    """Which line of the exec the player says it shows; 0 where it says nothing."""
    found = re.search(r"line ([\d,]+) of", text)
    return int(found[1].replace(",", "")) if found else 0


@pytest.mark.timeout(180)
async def test_nats_goes_away_and_comes_back(site: Site, session: str) -> None:
    async with Terminal(argv(site, "--filter", f"name:{session}"), ENVIRON) as terminal:
        await terminal.shows("● live")
        await terminal.shows("tick ")
        await site.kill_and_hold("nats")
        await terminal.shows("NATS is away: reconnecting, since")
        await site.release("nats")
        await terminal.shows(lambda text: "● live" in text and "tick " in text, timeout_s=60)
        await terminal.press("\x1b[B\r")
        before = _line(await terminal.shows(lambda text: _line(text) > 0))
        await terminal.shows(lambda text: _line(text) > before, timeout_s=60)
        await terminal.press("\x03")
        assert await terminal.wait() == 0


STALLS = """
import sys, time
import textual.timer
from sandreel_core.cli import main
# The machine stalls for 20 ms whenever a timer looks at the clock.
late_s = 0.0
def get_time():
    global late_s
    late_s += 0.02
    return time.monotonic() + late_s
textual.timer._time.get_time = get_time
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("how", ["a machine that stalls", "COLUMNS and LINES"])
async def test_a_window_that_is_dragged_gets_its_layout(site: Site, session: str, how: str) -> None:
    """Textual drops a timer that is late at its start, and with it the resize; it believes the environment, too."""
    args, environ = argv(site), ENVIRON
    if how == "a machine that stalls":
        args = [sys.executable, "-c", STALLS, *args[3:]]
    else:
        environ = ENVIRON | {"COLUMNS": "80", "LINES": "24"}
    async with Terminal(args, environ) as terminal:
        await terminal.shows("● live")
        for columns, rows in ((120, 30), (70, 12), (140, 40)):
            terminal.resize(columns, rows)
            await terminal.shows(_laid_out(rows, quiet=columns > 100))
        await terminal.press("\r")
        await terminal.shows("g go to")
        terminal.resize(100, 20)
        await terminal.shows(lambda text: "g go to" in text.split("\n")[19] and "●" in text.split("\n")[18])
        await terminal.press("q")
        await terminal.shows(lambda text: "↵ open" in text.split("\n")[19])
        await terminal.press("q")
        assert await terminal.wait() == 0


def _laid_out(rows: int, *, quiet: bool) -> Callable[[str], bool]:
    """Whether the table fills so many rows, and has room for the column."""
    return lambda text: ("QUIET" in text) is quiet and "↵ open" in text.split("\n")[rows - 1]


async def test_a_session_without_an_exec_says_so(site: Site) -> None:
    name = await site.session("bare")
    async with Terminal(argv(site, "--filter", f"name:{name}"), ENVIRON) as terminal:
        await terminal.shows("1/1")  # the filter below the table bears the name before the row is there
        await terminal.press("\r")
        await terminal.shows(f"{name} has no exec to open")
        await _filter(terminal, "name:nobody")
        await terminal.shows(lambda text: "no exec to open" not in text)
        await terminal.press("q")
        assert await terminal.wait() == 0
    await site.client.stop(ORG, name)


async def test_without_colour_there_is_none(site: Site, session: str) -> None:
    async with Terminal(argv(site), ENVIRON | {"NO_COLOR": "1"}) as terminal:
        await terminal.shows("● live")
        await terminal.press("q")
        assert await terminal.wait() == 0
        coloured = re.findall(rb"\x1b\[[0-9;]*?(?<![0-9])(?:3[0-7]|4[0-7]|9[0-7]|38;|48;)[0-9;]*m", terminal.printed)
        assert coloured == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_a_signal_gives_the_terminal_back(site: Site, session: str, number: int, code: int) -> None:
    """(A terminal that vanishes: test_hangup.py.)"""
    async with Terminal(argv(site), ENVIRON) as terminal:
        await terminal.shows("● live")
        terminal.kill(number)
        assert await terminal.wait() == code
        assert terminal.as_before
        assert LEFT_ALTERNATE_SCREEN in terminal.printed


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--once", "--sort", "colour"), "--sort 'colour' is none of name, org, state"),
        (("--once", "--filter", "/(/"), "is no expression of RE2"),
        (("--once", "--org", "a.*"), "org"),
        (("--once", "--filter", "x" * 201), "the limit is 200"),
        ((), "needs a terminal; --once"),
    ],
)
async def test_mistakes_are_one_line(site: Site, args: tuple[str, ...], why: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv(site, *args),
        env=ENVIRON,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await process.communicate()
    assert (process.returncode, out, said.count(b"\n")) == (2, b"", 1)
    assert why in said.decode()
