"""Tab, in real shells on real terminals, against everything real."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.program import ENVIRON, SANDREEL
from tests.support.system import ORG, Site
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

PROMPT = "ready> "
# How each shell is started without anybody's settings, and told what `sandreel completion` prints.
ARGV = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
BEGIN = {
    "bash": "PS1={prompt}; bind 'set bell-style none'; . {script}; clear",
    "zsh": "PS1={prompt}; autoload -U compinit && compinit -u -D; . {script}; clear",
    "fish": "function fish_prompt; echo -n {prompt}; end; set fish_autosuggestion_enabled 0; source {script}; clear",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(site: Site) -> str:
    name = await site.session("tab")
    await site.client.run(ORG, name, ["true"])  # a session that is ready may serve its files a moment later
    files = site.client.files(ORG, name)
    for path in ("source/main.py", "source/two words.txt", "source/sub/deep.txt", "sorted.csv", ".hidden"):
        await files.write(path, b"x")
    return name


@asynccontextmanager
async def shell(kind: str, site: Site, folder: Path) -> AsyncIterator[Terminal]:
    """The shell at its prompt in an empty folder, with `sandreel` on its path."""
    if shutil.which(kind) is None:
        pytest.skip(f"{kind} is not installed")
    (folder / "bin").mkdir()
    here = folder / "here"
    here.mkdir()
    binary = folder / "bin" / "sandreel"
    binary.write_text(f'#!/bin/sh\nexec {shlex.join(SANDREEL)} "$@"\n')
    binary.chmod(0o755)
    script = folder / "script"
    script.write_bytes(subprocess.run([*SANDREEL, "completion", kind], capture_output=True, check=True).stdout)
    environ = ENVIRON | {
        "PATH": f"{binary.parent}:{os.environ['PATH']}",
        "TERM": "xterm",
        "HOME": str(folder),
        "SANDREEL_CONFIG": str(site.data / "client.toml"),
    }
    argv = ["sh", "-c", f'cd {shlex.quote(str(here))} && exec "$@"', "sh", *ARGV[kind]]
    async with Terminal(argv, environ, cols=150, echo=True) as terminal:
        await terminal.press(BEGIN[kind].format(prompt=shlex.quote(PROMPT), script=shlex.quote(str(script))) + "\r")
        await terminal.shows(lambda text: text.startswith(PROMPT.rstrip()))
        yield terminal


async def tab(terminal: Terminal, typed: str, becomes: str) -> None:
    """Type, and press tab until the line is this: on a machine that is too busy for an answer in time it is pressed again,
    as a person would. Clears the line."""
    await terminal.press(typed)
    await terminal.shows(typed)
    async with asyncio.timeout(60):
        while True:
            await terminal.press("\t")
            try:
                # The cursor stands behind it: where the shell puts a blank, and where not, is a part of it.
                await terminal.shows(
                    lambda text: (
                        text.startswith(PROMPT + becomes.rstrip()) and terminal.cursor == (len(PROMPT + becomes), 0)
                    ),
                    timeout_s=4,
                )
                break
            except AssertionError:
                continue
    await terminal.press("\x15")
    await terminal.shows(lambda text: text.split("\n")[0].rstrip() == PROMPT.rstrip())


@pytest.mark.parametrize("kind", sorted(ARGV))
async def test_a_shell_completes(site: Site, session: str, tmp_path: Path, kind: str) -> None:
    await (await site.client.exec(ORG, session, ["true"], exec=f"alpha-{kind}")).wait()
    (tmp_path / "local").mkdir()
    async with shell(kind, site, tmp_path) as terminal:
        (tmp_path / "here" / "local.txt").write_text("")
        (tmp_path / "here" / "source").mkdir()
        for typed, becomes in (
            ("sandreel comp", "sandreel completion "),
            ("sandreel attach ta", f"sandreel attach {session} "),
            (f"sandreel attach {session} alpha-{kind[0]}", f"sandreel attach {session} alpha-{kind} "),
            ("sandreel cp loc", "sandreel cp local.txt "),
            ("sandreel cp ta", f"sandreel cp {session}:"),
            (f"sandreel cp {session}:sou", f"sandreel cp {session}:source/"),
            (f"sandreel cp {session}:source/ma", f"sandreel cp {session}:source/main.py "),
            (f"sandreel cp local.txt {session}:source/su", f"sandreel cp local.txt {session}:source/sub/"),
            (f"sandreel cp {session}:source/two", f"sandreel cp {session}:source/two\\ words.txt "),
            (f"sandreel files cat {session} so", f"sandreel files cat {session} so"),
            (f"sandreel files cat {session} sor", f"sandreel files cat {session} sorted.csv "),
            (f"sandreel exec {session} --cwd so", f"sandreel exec {session} --cwd source/"),
        ):
            await tab(terminal, typed, becomes)
        await terminal.press("exit\r")
        await terminal.wait()
