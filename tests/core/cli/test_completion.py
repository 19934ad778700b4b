"""What the shell is told when somebody presses tab."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandreel_core.cli.completers import ASK_S
from tests.support.program import SANDREEL
from tests.support.shell import Shell


async def offered(shell: Shell, line: str, kind: str = "bash") -> list[str]:
    """By argcomplete's own protocol: the line in the environment, the answer on descriptor 8 (here a file's)."""
    line = f"sandreel {line}"
    answer = shell.data / "answer"
    answer.write_text("")
    environ = shell.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": kind,
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    process = await asyncio.create_subprocess_exec(
        *SANDREEL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
    )
    async with asyncio.timeout(30):
        assert await process.communicate() == (b"", b"")
    return [each.strip() for each in answer.read_text().split("\n") if each.strip()]


async def answered(shell: Shell, line: str) -> list[str]:
    """On a machine that is too busy for an answer within the time it is asked again, as a person would."""
    async with asyncio.timeout(60):
        while not (found := await offered(shell, line)):
            pass
    return found


async def test_sessions_execs_and_orgs_come_from_the_installation(shell: Shell) -> None:
    await shell.here("session", "create", "s2")
    await shell.here("session", "create", "gone")
    await shell.here("session", "destroy", "gone")
    await shell.here("session", "create", "other", "--org", "acme")
    for exec_id in ("alpha", "beta"):
        await shell("exec", "s1", "--id", exec_id, "--", "print", "x\n")
    data = f"--data {shell.data}"

    assert await answered(shell, f"attach {data} ") == ["s1", "s2"]
    assert await answered(shell, f"session show {data} s") == ["s1", "s2"]
    assert await answered(shell, f"cast {data} s1 ") == ["alpha", "beta"]
    assert await answered(shell, f"cast {data} s1 al") == ["alpha"]
    assert await answered(shell, f"tail {data} --org ") == ["acme", "default"]
    assert await answered(shell, f"tail {data} --org acme ") == ["other"]
    assert await offered(shell, f"exec {data} s1 --id ") == []
    assert await offered(shell, "com") == ["commands", "completion"]
    assert {"--grep", "--since", "--org"} <= {each.split("\t")[0] for each in await offered(shell, "tail --", "fish")}


async def test_it_is_silent_and_soon_done_where_nothing_answers(tmp_path: Path) -> None:
    """A server that takes the connection and never says a word, one that is not there, and no installation at all."""
    shell = Shell(tmp_path)
    assert await offered(shell, f"attach --data {tmp_path} ") == []
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        await offered(shell, "com")
        start_s = time.monotonic() - began
        for port in (mute.getsockname()[1], 9):
            (tmp_path / "client.toml").write_text(f'[bus]\nnats_urls = ["nats://127.0.0.1:{port}"]\n')
            began = time.monotonic()
            assert await offered(shell, f"attach --data {tmp_path} ") == []
            # What the interpreter takes to start here and now, and what is waited for; twice, for a machine that is busy.
            assert time.monotonic() - began < 2 * (start_s + ASK_S) + 1


async def test_a_real_bash_completes(shell: Shell) -> None:
    """Bash with the script that `sandreel completion bash` prints, in the way in which it calls it at a tab."""
    binary = shell.data / "bin" / "sandreel"
    binary.parent.mkdir()
    binary.write_text(f'#!/bin/sh\nexec {shlex.join(SANDREEL)} "$@"\n')
    binary.chmod(0o755)
    script = subprocess.run([*SANDREEL, "completion", "bash"], capture_output=True, text=True, timeout=30).stdout
    words = ["sandreel", "attach", "--data", str(shell.data), "s"]
    program = f"""
{script}
COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}
COMP_LINE={shlex.quote(" ".join(words))}; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9
complete -p sandreel
_python_argcomplete sandreel s {shlex.quote(str(shell.data))}
printf '<%s>' "${{COMPREPLY[@]}}"
"""
    environ = shell.environ | {"PATH": f"{binary.parent}:{os.environ['PATH']}"}
    async with asyncio.timeout(60):
        while True:
            process = await asyncio.create_subprocess_exec(
                *("bash", "--norc", "-c", program), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
            )
            out, err = await process.communicate()
            if not out.endswith(b"<>"):  # no answer in time, on a machine that is busy
                break

    assert b"_python_argcomplete sandreel" in out
    assert out.decode().splitlines()[-1].replace(" ", "") == "<s1>", err


@pytest.mark.parametrize(("kind", "phrase"), [("bash", "complete "), ("zsh", "compdef"), ("fish", "complete ")])
def test_each_shell_has_its_script(kind: str, phrase: str) -> None:
    done = subprocess.run([*SANDREEL, "completion", kind], capture_output=True, text=True, timeout=30)

    assert (done.returncode, done.stderr) == (0, "")
    assert phrase in done.stdout
    assert "sandreel" in done.stdout


def test_without_argcomplete_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['argcomplete'] = None; sys.modules['argcomplete.shell_integration'] = None\n"
        "from sandreel_core.cli import main; sys.exit(main(['completion', 'bash']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)

    assert (done.returncode, done.stdout) == (2, "")
    assert "sandreel[cli]" in done.stderr
