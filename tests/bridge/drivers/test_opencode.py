"""OpenCode's driver, as a program: lines in, the server's events out, and nothing of it left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sandreel_bridge import drivers
from tests.support import opencode

DRIVER = Path(drivers.__file__).parent / "opencode.py"


def command(folder: Path, *words: str) -> list[str]:
    shape = ["--dir", str(folder), "--agent", "build", "--model", "gateway/m", *words]
    return [sys.executable, "-IS", str(DRIVER), *shape]


class Driven:
    """`line` reads up to the first line of that type (of a message: of that state)."""

    def __init__(self, programs: Path, *words: str) -> None:
        program = programs / "opencode"
        program.write_text(f"#!{sys.executable} -I\n{Path(opencode.SOURCE).read_text()}")
        program.chmod(0o755)
        line = command(programs, *words)
        path = f"{programs}:{os.environ['PATH']}"
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, env=os.environ | {"PATH": path})
        self.lines: list[dict[str, Any]] = []

    def say(self, uuid: str, text: str) -> None:
        self.write({"type": "user", "uuid": uuid, "text": text})

    def write(self, line: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line).encode() + b"\n")
        self.process.stdin.flush()

    def line(self, what: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            self.lines.append(json.loads(raw))
            if what in (self.lines[-1]["type"], self.lines[-1].get("state")):
                return self.lines[-1]
        raise AssertionError(f"it ended before {what}: {self.lines}")

    def end(self) -> int:
        """Its input ends; its exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.lines += map(json.loads, self.process.stdout)
        return self.process.wait(10)

    def types(self) -> list[str]:
        return [line["type"] for line in self.lines]


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[Driven]:
    driven = Driven(tmp_path)
    with driven.process:
        yield driven
        driven.process.terminate()  # and its server with it


def test_it_answers_and_ends_with_its_input(driven: Driven) -> None:
    driven.say("u1", "say hello")
    assert driven.line("session") == {"type": "session", "sessionID": opencode.SESSION}
    assert driven.line("started")["command_uuid"] == "u1"
    assert driven.line("message.part.updated")["properties"]["part"]["text"] == "hello"
    driven.line("session.idle")
    [server] = psutil.Process(driven.process.pid).children()
    driven.say("u1", "say hello")  # which it has had
    driven.say("u2", "say again")
    assert driven.line("started")["command_uuid"] == "u2"
    assert driven.end() == 0
    assert driven.types().count("session.idle") == 2
    assert not server.is_running()


def test_a_running_tool_is_told_once_and_an_interrupt_ends_it(driven: Driven) -> None:
    driven.say("u1", "tool")
    assert driven.line("message.part.updated")["properties"]["part"]["state"]["status"] == "running"
    driven.write({"type": "interrupt"})
    assert driven.end() == 0
    states = [
        line["properties"]["part"]["state"]["status"] for line in driven.lines if "part" in line.get("properties", {})
    ]
    assert states == ["running", "error"]
    assert driven.types()[-1] == "session.idle", "the end is told last"
    assert driven.types().count("session.idle") == 1


def test_what_is_never_taken_up_is_said_to_be_cancelled(driven: Driven) -> None:
    driven.say("u1", "race")
    driven.line("started")
    driven.say("u2", "say it")
    assert driven.line("cancelled")["command_uuid"] == "u2"
    driven.line("session.idle")
    assert driven.end() == 0


def test_a_failure_is_told_before_the_end(driven: Driven) -> None:
    driven.say("u1", "fail")
    assert driven.line("session.error")["properties"]["error"]["data"]["statusCode"] == 402
    driven.line("session.idle")
    assert driven.end() == 0
    assert driven.types().count("session.idle") == 1


def test_a_conversation_that_is_not_there_is_said_in_a_line(tmp_path: Path) -> None:
    driven = Driven(tmp_path, "--resume", "ses_nope")
    with driven.process:
        out, complaint = driven.process.communicate(timeout=20)
    assert (driven.process.returncode, out) == (1, b"")
    assert complaint.startswith(b"opencode: GET /session/ses_nope was answered with 404")
    assert complaint.count(b"\n") == 1


def test_a_server_that_dies_ends_it(driven: Driven) -> None:
    driven.say("u1", "die")
    assert driven.process.stdout is not None
    driven.process.stdout.read()
    assert driven.process.wait(10) == 1


def test_a_signal_ends_both(driven: Driven) -> None:
    driven.say("u1", "tool")
    driven.line("message.part.updated")
    [server] = psutil.Process(driven.process.pid).children()
    driven.process.send_signal(signal.SIGTERM)
    assert driven.process.wait(10) == 128 + signal.SIGTERM
    assert not server.is_running()


def test_without_opencode_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path), env={"PATH": str(tmp_path)}, capture_output=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 127
    assert done.stderr == b"opencode: there is no program opencode\n"
