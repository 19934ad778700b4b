"""The command line of analysts: `sandreel analyst add|ls|rm`, and the passwords that it makes and takes."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from sandreel_core.errors import Malformed
from sandreel_projections import analyst_command
from sandreel_projections.scram import verifier
from tests.projections.test_projector import fetch
from tests.support.analyst import PASSWORD, as_user, unique

Run = Callable[..., int]


@pytest.fixture
def run(database: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("SANDREEL_POSTGRES_DSN", database)
    parser = argparse.ArgumentParser()
    analyst_command.add(parser.add_subparsers())

    def parsed(*argv: str) -> int:
        args = parser.parse_args(["analyst", *argv])
        return int(asyncio.run(args.run(args)))

    return parsed


def test_law_6_a_password_is_shown_once_and_stored_nowhere(
    run: Run, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = unique("bob")
    assert run("add", name, "--org", "acme", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["analyst"], said["orgs"]) == (name, ["acme"])

    async def check() -> None:
        connection = await asyncpg.connect(as_user(database, name, said["password"]))
        assert await connection.fetchval("SELECT current_user::text") == name
        await connection.close()
        [stored] = await fetch(database, "SELECT rolpassword FROM pg_authid WHERE rolname = $1", name)
        assert stored["rolpassword"].startswith("SCRAM-SHA-256$4096:")

    asyncio.run(check())
    assert run("ls", "--json") == 0
    out = capsys.readouterr().out
    assert json.loads(out)["orgs"] == ["acme"]
    assert said["password"] not in out
    assert run("rm", name) == 0
    assert run("ls") == 0
    assert name not in capsys.readouterr().out.split("removed")[1]


def test_a_password_from_a_file_or_standard_input(
    run: Run, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    for source in (str(path), "-"):
        monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
        name = unique("cy")
        assert run("add", name, "--org", "a", "--org", "b", "--password-file", source) == 0
        assert PASSWORD not in capsys.readouterr().out

        async def enter(name: str = name) -> None:
            await (await asyncpg.connect(as_user(database, name))).close()

        asyncio.run(enter())
        assert run("rm", name) == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("add", "Ann", "--org", "acme"), "'Ann' is not 1 to 63"),
        (("add", "pg_ann", "--org", "acme"), "pg_"),
        (("add", "ann; DROP ROLE x", "--org", "acme"), "is not 1 to 63"),
        (("add", "ann", "--org", "a%"), "org 'a%' is not 1 to 128"),
        (("add", "ann", "--org", ""), "org '' is not 1 to 128"),
        (("add", "ann", "--org", "a", "--password-file", "/nowhere"), "/nowhere cannot be read: No such file"),
        (("add", "ann", "--org", "a", "--password-file", "/dev/null"), "0 characters; it may have 12 to 256"),
    ],
)
def test_mistakes_are_said_in_a_line(run: Run, argv: tuple[str, ...], said: str) -> None:
    with pytest.raises(Malformed, match=said.replace("%", "[%]")):
        run(*argv)


def test_passwords_that_clients_would_write_differently_are_refused() -> None:
    for password in ("pässword-long-enough", "tab\tin-the-middle", "short", "x" * 257):
        with pytest.raises(Malformed):
            verifier(password, b"salt")


def test_the_verifier_is_that_of_the_standard() -> None:
    """RFC 7677 §3: user `user`, password `pencil`; too short for us, so the arithmetic is checked on a longer one."""
    made = verifier("pencilpencil", bytes(16))
    assert made == verifier("pencilpencil", bytes(16)) != verifier("pencilpencil", bytes(15) + b"\1")
    assert made.count("$") == 2
