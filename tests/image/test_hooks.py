"""Claude's hooks of the full image: a plan waits for a person, and what a person says meanwhile is handed over once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HOOKS = Path(__file__).parents[2] / "image" / "full" / "usr" / "local" / "lib" / "sandreel"


class Steer:
    """The hook, with its folder somewhere else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "e1"
        self.folder.mkdir()
        self.program = folder / "steer.py"
        text = (HOOKS / "steer").read_text()
        assert 'Path("/workspace/.sandreel/steer")' in text
        self.program.write_text(text.replace('Path("/workspace/.sandreel/steer")', f"Path({str(folder)!r})"))

    def say(self, order: int, id: str, text: str) -> Path:
        path = self.folder / f"steer-{order:015d}-{id}.json"
        path.write_text(json.dumps({"id": id, "text": text}))
        return path

    def run(self, moment: str, payload: Any = None, *, exec_id: str = "e1") -> str:
        done = subprocess.run(
            [sys.executable, "-IS", self.program, moment],
            input=payload if isinstance(payload, str) else json.dumps(payload or {}),
            capture_output=True,
            text=True,
            env=os.environ | {"SANDREEL_EXEC_ID": exec_id},
        )
        assert done.returncode == 0
        return done.stdout

    def names(self) -> list[str]:
        return sorted(path.name.split("-")[0] for path in self.folder.iterdir())


@pytest.fixture
def steer(tmp_path: Path) -> Steer:
    return Steer(tmp_path)


def test_what_was_said_is_handed_over_once_in_order(steer: Steer) -> None:
    steer.say(2, "b", "then that")
    steer.say(1, "a", "first this")
    heard = json.loads(steer.run("post"))["hookSpecificOutput"]
    assert heard["hookEventName"] == "PostToolUse"
    assert heard["additionalContext"].startswith("[SANDREEL_STEER ids=a,b] ")
    assert heard["additionalContext"].endswith("first this\n\nthen that")
    assert steer.run("post") == ""
    assert steer.names() == ["consumed.steer", "consumed.steer"]


def test_at_a_stop_it_keeps_the_agent_from_stopping(steer: Steer) -> None:
    assert steer.run("stop") == ""
    steer.say(1, "a", "one more thing")
    assert json.loads(steer.run("stop"))["decision"] == "block"


def test_a_helper_of_the_agent_hears_nothing(steer: Steer) -> None:
    steer.say(1, "a", "for the agent")
    assert steer.run("post", {"agent_id": "helper"}) == ""
    assert steer.names() == ["steer"]


def test_a_message_delivered_another_way_is_taken_and_not_said(steer: Steer) -> None:
    steer.say(1, "a", "")
    assert steer.run("post") == ""
    assert steer.names() == ["consumed.steer"]


def test_a_file_that_is_not_whole_yet_keeps_its_name(steer: Steer) -> None:
    steer.say(1, "a", "x").write_text('{"id": "a", "te')
    steer.say(2, "b", "whole")
    assert "ids=b]" in steer.run("post")
    assert steer.names() == ["consumed.steer", "steer"]


def test_what_does_not_fit_waits_for_the_next_time(steer: Steer) -> None:
    steer.say(1, "a", "x" * 15_000)
    steer.say(2, "b", "y" * 2_000)
    assert "ids=a]" in steer.run("post")
    assert "ids=b]" in steer.run("post")
    long = steer.say(3, "c", "z" * 20_000)
    said = json.loads(steer.run("post"))["hookSpecificOutput"]["additionalContext"]
    assert said.count("z") == 16_000
    assert not long.exists()


@pytest.mark.parametrize(("payload", "exec_id"), [("no json", "e1"), ({}, "../e1"), ({}, ""), ({}, "another")])
def test_whatever_is_wrong_the_agent_goes_on(steer: Steer, payload: Any, exec_id: str) -> None:
    steer.say(1, "a", "x")
    assert steer.run("post", payload, exec_id=exec_id) == ""
    assert steer.names() == ["steer"]


def test_a_plan_is_not_acted_on() -> None:
    done = subprocess.run(["sh", HOOKS / "plan-gate"], input="{}", capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["hookSpecificOutput"]["permissionDecision"] == "deny"


def test_the_managed_settings_name_hooks_that_are_there() -> None:
    settings = json.loads((HOOKS.parents[3] / "etc" / "claude-code" / "managed-settings.json").read_text())
    commands = [
        hook["command"].split()[0] for each in settings["hooks"].values() for entry in each for hook in entry["hooks"]
    ]
    assert sorted({Path(command).name for command in commands}) == ["plan-gate", "steer"]
    for command in commands:
        path = HOOKS.parents[3] / command.lstrip("/")
        assert path.stat().st_mode & 0o111 == 0o111
