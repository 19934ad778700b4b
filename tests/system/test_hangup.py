"""What runs on a terminal that vanishes ends soon, whatever it was told of SIGHUP, and the jobs go on."""

from __future__ import annotations

import shlex
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.program import ENVIRON, argv
from tests.support.system import ORG, Site, open_site
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

# A second of grace, and what a busy machine takes to get to it.
SOON_S = 10


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    """With a session `s-1` in which one exec prints on and one, on a terminal, says one thing and is silent then."""
    async with open_site() as site:
        session = await site.session("s")
        assert session == "s-1"
        await site.client.exec(ORG, session, shell="while :; do echo tick; sleep 0.05; done", exec="loud")
        await site.client.exec(ORG, session, shell="echo begun; exec sleep 1000", exec="silent")
        yield site
        await site.client.stop(ORG, session)


COMMANDS = {
    "top": ("top", "● live"),
    "tail of what prints": ("tail s-1", "tick"),
    "tail of silence": ("tail s-1 --grep begun", "begun"),
    "attach to what prints": ("attach s-1 loud", "tick"),
    "attach to silence": ("attach s-1 silent", "begun"),
    "exec": ("exec s-1 --id ID -- sh -c 'echo begun; exec sleep 1000'", "begun"),
    "exec -it": ("exec -it s-1 --id ID -- sh -c 'echo begun; exec sleep 1000'", "begun"),
    "replay in a pause": ("replay s-1 loud --speed 0.01", "tick"),
    "events": ("events --session s-1 --exec silent --follow", "begun"),
}


# By default SIGHUP is the end of what does not take it itself.
@pytest.mark.parametrize(
    ("name", "hangup"), [*((name, "ignored") for name in COMMANDS), ("top", "default"), ("exec -it", "default")]
)
async def test_what_is_shown_ends_with_its_terminal(site: Site, name: str, hangup: str) -> None:
    command, shows = COMMANDS[name]
    mine = f"mine-{list(COMMANDS).index(name)}-{hangup}"
    words = [mine if word == "ID" else word for word in shlex.split(command)]
    typed = argv(site.data, *words)
    if hangup == "ignored":
        typed = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *typed]
    async with Terminal(typed, ENVIRON | {"TERM": "xterm"}) as terminal:
        await terminal.until(shows)
        terminal.hang_up()
        assert await terminal.wait(timeout_s=SOON_S) in ((129,) if hangup == "ignored" else (129, -signal.SIGHUP))
    if mine in words:
        assert (await site.client.exec_info(ORG, "s-1", mine)).phase == "running"
        await site.client.handle(ORG, "s-1", mine).cancel()
