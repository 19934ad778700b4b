"""What turns cost, as `sandreel usage` says it."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable

import pytest

from sandreel_core.errors import Malformed, NotFound
from sandreel_projections import usage_command
from tests.support.story import Story

Run = Callable[..., list[str]]


@pytest.fixture
def usage(told: Story, database: str, typed: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Of what was told."""
    monkeypatch.setenv("SANDREEL_POSTGRES_DSN", database)
    return typed


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("SANDREEL_ORG", "default")
    parser = argparse.ArgumentParser()
    usage_command.add(parser.add_subparsers())

    def run(*argv: str) -> list[str]:
        assert asyncio.run(usage_command.run(parser.parse_args(["usage", *argv]))) == 0
        return capsys.readouterr().out.splitlines()

    return run


def test_usage_by_model_with_a_total_and_what_has_no_price(usage: Run) -> None:
    lines = usage()
    assert lines[0].split() == ["model", "turns", "calls", "input", "cached", "output", "cost_usd", "unpriced"]
    assert [line.split() for line in lines[2:]] == [
        ["big", "1", "2", "3000", "400", "120", "0.013500"],
        ["new", "1", "1", "10", "0", "1", "1"],
        ["total", "1", "3", "3010", "400", "121", "0.013500", "1"],
    ]


def test_usage_by_everything_as_json_adds_up_to_the_same(usage: Run) -> None:
    for by in ("user", "agent", "model", "org", "day", "week", "month"):
        rows = [json.loads(line) for line in usage("--by", by, "--json", "--since=-1h")]
        assert all(by in row for row in rows)
        assert sum(row["cost_micro_usd"] or 0 for row in rows) == 13_500
        assert sum(row["calls"] for row in rows) == 3


def test_usage_of_one_turn_shows_its_calls_and_what_the_agent_says(usage: Run) -> None:
    text = "\n".join(usage("--turn", "t-1"))
    assert "t-1 in demo (claude-code, success)" in text
    assert "0.009000" in text
    assert "cut off" in text
    assert "the agent says 3,000 in, 120 out, $0.050000: they disagree (tokens +11)" in text
    kinds = [json.loads(line)["kind"] for line in usage("--turn", "t-1", "--session", "demo", "--json")]
    assert kinds == ["turn", "call", "call", "call"]


def test_what_is_not_shown_is_said(
    usage: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(usage_command, "MAX_ROWS", 1)
    parser = argparse.ArgumentParser()
    usage_command.add(parser.add_subparsers())
    for argv, rows, says in (
        (["--by", "model", "--json"], 1, "these are the first 1 rows"),
        (["--turn", "t-1", "--json"], 2, "these are the first 1 calls; the sums are of all 3"),
    ):
        asyncio.run(usage_command.run(parser.parse_args(["usage", *argv])))
        told = capsys.readouterr()
        assert len(told.out.splitlines()) == rows
        assert says in told.err


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (("--turn", "t 1"), r"turn 't 1' is not"),
        (("--turn", "t-1", "--by", "day"), r"neither with --by nor with --since"),
        (("--org", "no such", "--by", "day"), r"org 'no such' is not"),
        (("--session", "a/b"), r"session 'a/b' is not"),
        (("--all", "--org", "x"), r"not both"),
        (("--since", "e1:0:5"), r"no cursor"),
    ],
)
def test_mistakes_are_said_in_a_line(typed: Run, argv: tuple[str, ...], problem: str) -> None:
    with pytest.raises(Malformed, match=problem) as refused:
        typed(*argv)
    assert "\n" not in str(refused.value)


def test_a_turn_that_is_not_known_is_said_to_be_none_and_no_usage_is_a_total_of_nothing(usage: Run) -> None:
    with pytest.raises(NotFound, match="no turn t-77 of default"):
        usage("--turn", "t-77")
    assert [line.split() for line in usage("--org", "nobody")[2:]] == [["total", "0", "0", "0", "0", "0"]]
    assert usage("--org", "nobody", "--json") == []
