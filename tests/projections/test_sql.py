"""`sandreel sql`, and the tables that it prints."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Malformed, Misconfigured, Unavailable
from sandreel_projections import sql_command
from sandreel_projections.queries import select
from sandreel_projections.table import cell, lines
from tests.projections.test_lines import write
from tests.support.script import job

Run = Callable[..., int]


@pytest.fixture
def run(database: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("SANDREEL_POSTGRES_DSN", database)
    parser = argparse.ArgumentParser()
    sql_command.add(parser.add_subparsers())
    return lambda *argv: asyncio.run(sql_command.run(parser.parse_args(["sql", *argv])))


def test_table_is_aligned(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("SELECT * FROM (VALUES ('a', 1), ('bcd', 100), (NULL, NULL)) AS t (name, number)") == 0
    assert capsys.readouterr().out.splitlines() == ["name  number", "────  ──────", "a          1", "bcd      100", ""]


def test_json_is_one_object_a_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    statement = (
        r"SELECT 1 AS a, '\x00ff'::bytea AS b, timestamptz '2026-11-24 03:00Z' AS c, NULL AS d, 1.10::numeric AS e"
    )
    assert run("--json", statement) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"a": 1, "b": "\\x00ff", "c": "2026-11-24T03:00:00+00:00", "d": None, "e": "1.10"}


def test_without_a_statement_every_view_is_explained(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    out = capsys.readouterr().out
    assert "exec_lines" in out
    assert "number of the line, from 1 per stream" in out


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nothing FROM reel.execs", "nothing"),
        ("SELECT * FROM reel.execz", "execz"),
        ("DELETE FROM reel.execs RETURNING exec", "only read"),
        ("CREATE TABLE x (i int)", "no result"),
        ("SELECT 1; SELECT 2", "multiple commands"),
        ("SELECT 1/0", "division by zero"),
        ("SELECT pg_read_file('/etc/passwd')", "permission denied"),
        ("  ", "empty"),
    ],
)
def test_mistakes_are_said_in_a_line(run: Run, statement: str, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        run(statement)


def test_a_statement_that_takes_too_long_is_ended(run: Run) -> None:
    with pytest.raises(Unavailable, match="--timeout"):
        run("--timeout", "0.2", "SELECT pg_sleep(20)")


def test_nowhere_to_ask(monkeypatch: pytest.MonkeyPatch, run: Run, tmp_path: object) -> None:
    monkeypatch.delenv("SANDREEL_POSTGRES_DSN")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Misconfigured, match="dsn"):
        run("SELECT 1")


@pytest.mark.parametrize(
    "host", ["s3cret#x@127.0.0.1:1/db", "s3c/ret@127.0.0.1:1/db", "s3[ret@h/db", "p@h:1/db?s3cret"]
)
def test_law_6_a_dsn_that_cannot_be_read_is_not_quoted(monkeypatch: pytest.MonkeyPatch, run: Run, host: str) -> None:
    monkeypatch.setenv("SANDREEL_POSTGRES_DSN", f"postgres://u:{host}")
    with pytest.raises(Misconfigured, match="dsn cannot be read") as refused:
        run("SELECT 1")
    assert "s3" not in str(refused.value)
    assert refused.value.__cause__ is None


async def test_the_readers_own_trouble_is_not_taken_for_that_of_postgres(database: str) -> None:
    with pytest.raises(BrokenPipeError):
        async with select(database, "SELECT 1"):
            raise BrokenPipeError


async def test_rows_come_in_pages(database: str) -> None:
    async with select(database, "SELECT i FROM generate_series(1, 25000) AS t (i)") as answer:
        assert [row async for row in answer.rows] == [(i,) for i in range(1, 25001)]


async def test_words_of_a_job_are_found(database: str) -> None:
    await write(database, job(SessionSubjects("acme", "s1"), "e1", [("stdout", b"fine\nFAILED here\nfine\n")]))
    statement = "SELECT line, text FROM reel.exec_lines WHERE exec = 'e1' AND text LIKE '%FAILED%'"
    async with select(database, statement) as answer:
        assert [row async for row in answer.rows] == [(2, "FAILED here")]


def test_what_a_job_printed_does_not_steer_the_terminal() -> None:
    assert cell("\x1b[2Jred\x07\n") == r"\x1b[2Jred\x07\n"
    assert cell(datetime(2026, 11, 24, 3, 0, 0, 5000, UTC)) == "2026-11-24 03:00:00.005Z"


def test_wide_rows_are_cut_to_the_terminal() -> None:
    printed = lines(["id", "text"], [(1, "x" * 100), (2, "漢字" * 40)], width=40)
    assert all(len(line) <= 40 for line in printed)
    assert printed[2].endswith("…")


def test_the_least_timeout_is_one(run: Run) -> None:
    with pytest.raises(Unavailable, match="took longer"):
        run("--timeout", "0.0004", "SELECT pg_sleep(5)")
