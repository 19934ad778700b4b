"""Turns in a session that is a plain process: there is no /workspace, and nobody is told that there is."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sandreel_core.contract import turn as c
from sandreel_core.embedded.process import PYTHON
from tests.support.bridges import Turns, open_turns, texts
from tests.support.interpreter import for_everybody
from tests.support.system import ORG

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def turns() -> AsyncIterator[Turns]:
    """As root, sessions run as a user of their own, who must be able to run their Python."""
    with pytest.MonkeyPatch.context() as patch, for_everybody() as python:
        if python is None:
            pytest.skip("this Python is closed to others, and the machine has no other of its version")
        patch.setattr("sandreel_core.embedded.stack.PYTHON", (python, *PYTHON[1:]))
        async with open_turns(python, SANDREEL_SPAWNER_BUBBLEWRAP="off") as turns, turns.bridge():
            yield turns


async def test_a_program_finds_what_it_is_told_of(turns: Turns) -> None:
    session = await turns.site.session("plain")
    data = b"some bytes"
    await turns.client.files(ORG, session).write("uploads/a.txt", data)
    attached = c.Attachment(path="/workspace/uploads/a.txt", sha256=hashlib.sha256(data).hexdigest())
    look = 'sh pwd -P; cat ../uploads/a.txt; echo; dirname "$CLAUDE_CONFIG_DIR"; test -e /workspace; echo $?'
    _, turn = await turns.run(look, session, turn="look", workdir="/workspace/app", attachments=[attached])
    assert turn.finished is not None
    assert turn.finished.status == "success", turn.finished.error
    workspace = str(turns.site.folder(session).workspace.resolve())
    there = "0" if Path("/workspace").exists() else "1"
    expected = [f"{workspace}/app", data.decode(), f"{workspace}/.home", there, "(0)"]
    assert texts(await turns.events(session, "look"))[0].split("\n") == expected
    assert (await turns.client.session(ORG, session)).state.workspace == workspace
