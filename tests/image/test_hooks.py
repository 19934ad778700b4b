"""Claude's hooks of the images with agents: a plan waits for a person, and what a person says meanwhile is handed over once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

HOOKS = Path(__file__).parents[2] / "image" / "agents" / "usr" / "local" / "lib" / "sandreel"


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


def test_of_hooks_that_run_together_one_gets_a_message(steer: Steer) -> None:
    for order in range(20):
        steer.say(order, f"m{order}", "x")
    with ThreadPoolExecutor(4) as together:
        heard = [json.loads(said) for said in together.map(lambda _: steer.run("post"), range(4)) if said]
    ids = [
        id
        for each in heard
        for id in each["hookSpecificOutput"]["additionalContext"].split("]")[0].split("ids=")[1].split(",")
    ]
    assert sorted(ids) == sorted(f"m{order}" for order in range(20))


def test_what_nobody_hears_is_there_again(steer: Steer) -> None:
    steer.say(1, "a", "x")
    with Path("/dev/full").open("w") as nowhere:
        done = subprocess.run(
            [sys.executable, "-IS", steer.program, "post"],
            input=b"{}",
            stdout=nowhere,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"SANDREEL_EXEC_ID": "e1"},
        )
    assert done.returncode == 0
    assert steer.names() == ["steer"]


def test_a_file_that_is_not_whole_yet_keeps_its_name(steer: Steer) -> None:
    steer.say(1, "a", "x").write_text('{"id": "a", "te')
    steer.say(2, "b", "whole")
    assert "ids=b]" in steer.run("post")
    assert steer.names() == ["consumed.steer", "steer"]


def test_what_does_not_fit_waits_for_the_next_time(steer: Steer) -> None:
    for letter, most in (("x", 9_000), ("€", 16_000 // 3)):
        steer.say(1, "a", letter * (most - 1000))
        steer.say(2, "b", letter * 1000)  # too many, with the empty line between the two
        assert "ids=a]" in steer.run("post")
        assert "ids=b]" in steer.run("post")
        steer.say(3, "c", letter * (most - 1000))
        steer.say(4, "d", letter * 998)
        assert "ids=c,d]" in steer.run("post")


@pytest.mark.parametrize("letter", ["z", "ä", "€", "𝄞"])
@pytest.mark.parametrize("before", ["", "q", "qq", "qqq"])
def test_what_is_too_long_is_cut_between_characters_and_says_where_the_rest_is(
    steer: Steer, letter: str, before: str
) -> None:
    text = before + letter * 9_001
    steer.say(1, "a", text)
    said = json.loads(steer.run("post"))["hookSpecificOutput"]["additionalContext"]
    heard = said.partition("\n\n")[2]
    begun, _, remark = heard.partition("\n[cut here")
    assert text.startswith(begun)
    assert len(said) < 10_000
    assert 16_000 - 4 < len(heard.encode()) <= 16_000 or len(heard) == 9_000
    whole = json.loads(Path(remark.rpartition(" in ")[2].removesuffix("]")).read_text())
    assert whole == {"id": "a", "text": text}
    steer.say(2, "b", letter * min(9_000, 16_000 // len(letter.encode())))
    assert "cut here" not in steer.run("post")


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
