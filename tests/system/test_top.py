"""`sandreel top` in a real terminal, against everything real."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from tests.support.glass import Glass
from tests.support.system import ORG, Site, open_site

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("SANDREEL_") and name != "NO_COLOR"}
# Numbered lines for ever; a title-setting escape and a bell in each, which must not reach the terminal.
TICKS = r'i=0; while :; do i=$((i+1)); printf "tick %d \033]0;owned\a\033[2J\n" $i; sleep 0.1; done'
LEFT_ALTERNATE_SCREEN = b"\x1b[?1049l"


def argv(site: Site, *args: str) -> list[str]:
    return [sys.executable, "-m", "sandreel_core.cli", "top", "--data", str(site.data), *args]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with open_site() as site:
        yield site


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


@pytest.mark.timeout(180)
async def test_a_real_terminal_sorts_filters_opens_scrubs_and_is_given_back(site: Site, session: str) -> None:
    async with Glass(argv(site), ENVIRON) as glass:
        before = glass.modes()
        await glass.until("● live")
        await glass.until(lambda text: "ticks" in text and "tick " in text and "exited 3" in text)
        assert all(len(line) <= 80 for line in glass.lines)

        await glass.press("r")  # by state the other way round
        await glass.until(lambda text: re.search("STATE +▼", text) is not None)
        await glass.press("s")
        await glass.until("LINES/S▼")

        await glass.press("/")
        await glass.press("state:running /^top-[0-9]+ ticks/\r")
        await glass.until(lambda text: "ticks" in text and "exited 3" not in text)
        await glass.press("/")
        await glass.press("\x15/(/\r")  # cleared, then no expression
        await glass.press("/")
        await glass.press("\x15name:nobody\r")
        await glass.until("nothing is like this filter")
        await glass.press(f"/\x15name:{session}\r")
        await glass.until(lambda text: "ticks" in text and "exited 3" in text)

        await glass.press("t")  # execs alone; the one that prints is first by rate
        await glass.until(lambda text: re.search(r"^ticks", text, re.MULTILINE) is not None)
        await glass.press("\x1b[H\r")
        await glass.until(lambda text: f"{ORG} / {session} / ticks" in text and " live " in text)
        live = _line(await glass.until(lambda text: _line(text) >= 20))
        await glass.until(lambda text: _line(text) > live)

        await glass.press("g")
        await glass.press("+7\r")
        await glass.until(lambda text: _line(text) == 7 and text.rstrip().splitlines()[-3].strip() != "")
        shown = [line.strip() for line in glass.lines[2:-2] if line.strip().startswith("tick")]
        assert shown == [f"tick {number}" for number in range(1, 8)]
        await glass.press("\x1b[A")  # up: a line back
        await glass.until(lambda text: _line(text) == 6 and "tick 7" not in text)
        await glass.press("\x1b[D")  # left: an event back
        await glass.until(lambda text: _line(text) == 5)
        await glass.press("g1%1\r")
        await glass.until("is none of 45%")
        await glass.press("l")
        await glass.until(lambda text: _line(text) > live)

        await glass.press("q")
        await glass.until("LINES/S▼")
        glass.resize(120, 30)
        await glass.until(lambda text: "QUIET" in text and len(text.splitlines()) == 30)
        await glass.press("q")
        assert await glass.wait() == 0
        assert glass.modes() == before
        assert LEFT_ALTERNATE_SCREEN in glass.raw
        assert b"owned" not in glass.raw


def _line(text: str) -> int:
    """Which line of the exec the player says it shows; 0 where it says nothing."""
    found = re.search(r"line ([\d,]+) of", text)
    return int(found[1].replace(",", "")) if found else 0


@pytest.mark.timeout(180)
async def test_nats_goes_away_and_comes_back(site: Site, session: str) -> None:
    async with Glass(argv(site, "--filter", f"name:{session}"), ENVIRON) as glass:
        await glass.until("● live")
        await glass.until("tick ")
        await site.kill_and_hold("nats")
        await glass.until("NATS is away: reconnecting, since")
        await site.release("nats")
        await glass.until(lambda text: "● live" in text and "tick " in text, timeout_s=60)
        await glass.press("\x1b[B\r")
        before = _line(await glass.until(lambda text: _line(text) > 0))
        await glass.until(lambda text: _line(text) > before, timeout_s=60)
        await glass.press("\x03")
        assert await glass.wait() == 0


async def test_without_colour_there_is_none(site: Site, session: str) -> None:
    async with Glass(argv(site), ENVIRON | {"NO_COLOR": "1"}) as glass:
        await glass.until("● live")
        await glass.press("q")
        assert await glass.wait() == 0
        coloured = re.findall(rb"\x1b\[[0-9;]*?(?<![0-9])(?:3[0-7]|4[0-7]|9[0-7]|38;|48;)[0-9;]*m", bytes(glass.raw))
        assert coloured == []


async def test_a_vanished_terminal_ends_it(site: Site, session: str) -> None:
    glass = Glass(argv(site), ENVIRON)
    await glass.__aenter__()
    await glass.until("● live")
    asyncio.get_running_loop().remove_reader(glass._ours)
    os.close(glass._ours)
    assert await glass.wait(timeout_s=30) != 0


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
