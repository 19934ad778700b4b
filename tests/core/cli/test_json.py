"""`--json` on every command, and what it prints where no other test looks."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator

from sandreel_core.cli.entry import _parser
from sandreel_core.cli.stage import JsonStage
from sandreel_core.embedded.part import Status


def leaves(parser: argparse.ArgumentParser, name: str = "sandreel") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that does something, by its words."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield name, parser
    for group in groups:
        for verb, inner in group.choices.items():
            yield from leaves(inner, f"{name} {verb}")


def test_every_command_has_json() -> None:
    commands = dict(leaves(_parser()))
    assert {"sandreel demo", "sandreel up", "sandreel sql", "sandreel streams restore"} <= set(commands)
    without = [name for name, parser in commands.items() if "--json" not in parser._option_string_actions]
    assert without == ["sandreel completion"]  # prints a script for a shell


def test_the_demo_as_json_is_one_object_a_line() -> None:
    out = io.StringIO()
    stage = JsonStage(out)
    stage.title("A title")
    stage.say("")
    stage.say("  said")
    stage.part(Status("nats", "ready", 7, "127.0.0.1:1", 0.5))
    stage.kill("nats", "SIGKILL at line 3")
    stage.output(b"burst 1\n")
    stage.progress("1 line")
    stage.end_output()
    assert stage.compare("lines", 3, 3)
    assert not stage.compare("holes", [], ["4"])
    stage.block("a\nb")
    stage.verdict("Nothing was lost.", good=True)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"title": "A title"},
        {"text": "said"},
        {"part": "nats", "state": "ready", "pid": 7, "detail": "127.0.0.1:1", "took_s": 0.5},
        {"killed": "nats", "text": "SIGKILL at line 3"},
        {"check": "lines", "equal": True, "produced": 3, "seen": 3},
        {"check": "holes", "equal": False, "produced": [], "seen": ["4"]},
        {"rows": ["a", "b"]},
        {"verdict": "Nothing was lost.", "good": True},
    ]
