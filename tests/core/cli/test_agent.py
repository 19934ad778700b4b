"""`--agent`: an exec's output as a coding agent's, as a person and as a program see it."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import AsyncGenerator

import msgspec
import pytest

from sandreel_bridge.adapters.table import ADAPTERS
from sandreel_core.agent import Typed
from sandreel_core.cli.agent_screen import AgentScreen
from sandreel_core.client.items import Ended, ExecItem
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from tests.core.cli.test_completion import offered
from tests.support import samples
from tests.support.recordings import Recording
from tests.support.shell import Shell

BASH = Recording("claude-code", "bash_partial")


async def recorded(shell: Shell, recording: Recording, exec_id: str, *, cuts: tuple[int, ...] = (1000, 5000)) -> None:
    """An exec that prints it, in blocks that end somewhere within a line."""
    assert (await shell("exec", "s1", "--id", exec_id, "--", "print", *texts(recording, cuts))).code == 0


def texts(recording: Recording, cuts: tuple[int, ...]) -> list[str]:
    return [piece.decode() for piece in recording.pieces(cuts)]


async def test_a_run_is_shown_as_text_tools_and_usage(shell: Shell) -> None:
    await recorded(shell, BASH, "x1")
    shown = await shell("attach", "s1", "x1", "--agent", "claude-code")

    assert (shown.code, shown.err) == (0, "")
    assert shown.out.decode().splitlines() == [
        "· claude-code, claude-opus-5-5, conversation ce45bd9e-5694-4872-9d7a-3f1527723ec1",
        "I will run it.",
        "▸ Bash echo hello-from-bash",
        "· 420 tokens in (300 from cache), 25 out",
        "  hello-from-bash",
        "Done: the command ran.",
        "· 420 tokens in (300 from cache), 15 out",
        "■ completed in 0.3 s · 840 tokens in (600 from cache), 40 out, $0.0019",
    ]
    again = await shell("replay", "s1", "x1", "--speed", "max", "--agent", "claude-code")
    assert (again.code, again.out) == (0, shown.out)
    cuts = tuple(range(0, len(BASH.stdout), 700))
    direct = await shell("exec", "s1", "--agent", "claude-code", "--", "print", *texts(BASH, cuts))
    assert (direct.code, direct.out) == (0, shown.out)


async def test_programs_get_agent_events_in_the_place_of_stdout(shell: Shell) -> None:
    await recorded(shell, BASH, "x1")
    plain = (await shell("attach", "s1", "x1", "--json")).objects
    found = (await shell("attach", "s1", "x1", "--json", "--agent", "claude-code")).objects

    assert [each for each in found if not each["type"].startswith("agent.")] == [
        each for each in plain if each["type"] != "exec.output"
    ]
    agents = [each for each in found if each["type"].startswith("agent.")]
    events = [each for each in BASH.items() if not isinstance(each, Typed)]
    assert [each["type"] for each in agents] == [each.type for each in events]
    use = next(each for each in agents if each["type"] == "agent.tool_use")
    assert use["data"]["input"] == {"command": "echo hello-from-bash", "description": "run a command"}
    # Each names the block in which its line ended, and the cursor of that block.
    blocks = {each["n"]: each["cursor"] for each in plain}
    assert all(blocks[each["n"]] == each["cursor"] and each["data"]["source_n"] == each["n"] for each in agents)


async def test_what_follows_a_cursor_is_read_with_what_stands_before_it(shell: Shell) -> None:
    await recorded(shell, BASH, "x1")
    whole = (await shell("attach", "s1", "x1", "--json", "--agent", "claude-code")).objects
    after = next(each["cursor"] for each in whole if each["type"] == "agent.text")
    rest = (await shell("attach", "s1", "x1", "--json", "--agent", "claude-code", "--after", after)).objects

    begin = max(at for at, each in enumerate(whole) if each["cursor"] == after) + 1
    assert [each for each in rest if each["type"] != "caught_up"] == whole[begin:]
    other = await shell("attach", "s1", "x1", "--agent", "claude-code", "--after", "zz:0:1")
    assert (other.code, other.out) == (2, b"")
    assert "epoch zz" in other.err


async def test_text_is_shown_on_a_terminal_as_it_is_typed(shell: Shell) -> None:
    """Also the half of a text that no whole one follows: the program was killed while it wrote."""
    await recorded(shell, Recording("claude-code", "stdin_interrupt_control"), "x1", cuts=(5300,))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        shell.argv("attach", "s1", "x1", "--agent", "claude-code"), stdout=theirs, stderr=theirs, env=shell.environ
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
        process.wait(timeout=30)
    text = re.sub(r"\x1b\[[0-9;]*m", "", seen.decode()).replace("\r\n", "\n")

    assert process.returncode == 0
    assert text.count("w0 w1 w2 w3 w4") == 1
    assert "w4 \n· 420 tokens in (300 from cache), 0 out" not in text  # provisional: not told
    assert "■ cancelled" in text
    assert "after interrupt\n" in text


async def test_who_leaves_in_the_middle_of_a_text_is_told_how_to_come_back(shell: Shell) -> None:
    data = Recording("claude-code", "text_partial").stdout
    half = data[: data.index(b'"text":"fake ')].rpartition(b"\n")[0] + b"\n"
    ours, theirs = pty.openpty()
    argv = shell.argv("exec", "s1", "--id", "x1", "--", "cat")
    seen = b""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=shell.environ) as job:
        try:
            assert job.stdin is not None
            assert job.stdout is not None
            job.stdin.write(half)
            job.stdin.flush()
            assert await asyncio.to_thread(job.stdout.read, 1)  # it has begun
            argv = shell.argv("attach", "s1", "x1", "--agent", "claude-code")
            with subprocess.Popen(argv, stdout=theirs, stderr=theirs, env=shell.environ) as viewer:
                os.close(theirs)
                give_up = threading.Timer(60, viewer.kill)  # then the terminal is at its end, and reading it fails
                give_up.start()
                try:
                    while not seen.endswith(b"Hello from the "):
                        seen += await asyncio.to_thread(os.read, ours, 65536)
                    viewer.send_signal(signal.SIGINT)
                    while b"\n" not in seen.partition(b"sandreel: ")[2]:
                        seen += await asyncio.to_thread(os.read, ours, 65536)
                finally:
                    give_up.cancel()
            assert viewer.returncode == 130
        finally:
            job.kill()
            os.close(ours)

    assert b"Hello from the \r\nsandreel: detached; the job goes on: sandreel attach s1 x1 --agent claude-code" in seen


async def test_lines_that_are_no_json_are_counted_and_an_end_without_a_result_is_said(shell: Shell) -> None:
    shown = await shell(
        "exec", "s1", "--agent", "codex", "--", "print", "Reading prompt\n", '{"type":"turn.started"}\n'
    )

    assert (shown.code, shown.out.decode()) == (0, "■ interrupted\n")
    assert shown.err == "sandreel: lines of its stdout that were no JSON, and are not shown: 1\n"


async def test_a_program_that_was_not_started_is_no_run_of_an_agent(capfd: pytest.CaptureFixture[str]) -> None:
    """Nobody was interrupted: nothing ran."""

    async def items() -> AsyncGenerator[ExecItem, None]:
        failed = x.Exited(exit_code=None, reason="spawn_failed", message="no such file", duration_ms=1)
        yield Ended(Cursor("e1", 0, 7), 1, msgspec.structs.replace(samples.ALL["exec.exited"], data=failed))

    await AgentScreen(ADAPTERS["codex"].reader(), json=False).show(items())

    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err == "sandreel: the job could not be started: no such file\n"


async def test_mistakes_are_one_line(shell: Shell) -> None:
    for argv, phrase in (
        (("attach", "s1", "x1", "--agent", "claude"), "claude-code, codex, gemini-cli, opencode"),
        (("attach", "-it", "s1", "x1", "--agent", "codex"), "-it"),
        (("exec", "s1", "-d", "--agent", "codex", "--", "print"), "-d"),
    ):
        done = await shell.here(*argv)
        assert (done.code, done.out) == (2, b"")
        assert phrase in done.err
        assert done.err.count("\n") == 1


async def test_agents_are_completed(shell: Shell) -> None:
    assert await offered(shell, f"attach --data {shell.data} s1 x1 --agent c") == ["claude-code", "codex"]
