"""The spawner's settings: what an operator may say, and what is refused at once."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sandreel_core.errors import Misconfigured
from sandreel_core.settings import load
from sandreel_core.spawner.settings import Settings, installation_key

BASE = {"SANDREEL_SPAWNER_DATA": "/data"}


def test_blank_means_unset() -> None:
    settings = load(Settings, environ=BASE | {"SANDREEL_SPAWNER_MAX_SESSIONS": " ", "SANDREEL_SPAWNER_NODE": ""})
    assert (settings.max_sessions, settings.node) == (10, None)
    assert settings.node_name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_SESSIONS", "0"),
        ("MAX_SESSIONS", "many"),
        ("MAX_TTL_S", "59"),
        ("MAX_TTL_S", "nan"),
        ("MAX_TTL_S", "inf"),
        ("AGENT_USER", "0:10001"),
        ("AGENT_USER", "10001:0"),
        ("AGENT_USER", "root:root"),
        ("AGENT_USER", "10001"),
        ("BUBBLEWRAP", "perhaps"),
        ("INSTALLATION_KEY", "short"),
        ("MAX_SESIONS", "3"),
    ],
)
def test_what_is_out_of_bounds_is_an_operators_error(name: str, value: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(Settings, environ=BASE | {f"SANDREEL_SPAWNER_{name}": value})
    assert "\n" not in str(caught.value)


def test_the_installations_key_is_made_once_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path / "new"))
    first = installation_key(settings)
    assert (installation_key(settings), len(first)) == (first, 64)
    files = list((tmp_path / "new").iterdir())
    assert [file.name for file in files] == ["installation.key"]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    assert first.decode() not in repr(settings)
    given = Settings(data=str(tmp_path), installation_key="x" * 32)
    assert installation_key(given) == b"x" * 32
    assert "xxx" not in repr(given)


def test_two_installations_have_two_names_unless_they_are_given_one(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path))
    first, second = settings.installation_name(b"a" * 32), settings.installation_name(b"b" * 32)
    assert first == settings.installation_name(b"a" * 32) != second
    assert Settings(data=str(tmp_path), installation="mine").installation_name(b"a" * 32) == "mine"


@pytest.mark.parametrize("kept", [b"", b"\n", b"short", b"\xff" * 64])
def test_a_key_that_anybody_could_guess_is_not_taken(tmp_path: Path, kept: bytes) -> None:
    (tmp_path / "installation.key").write_bytes(kept)
    with pytest.raises(Misconfigured, match=r"installation\.key"):
        installation_key(Settings(data=str(tmp_path)))
    assert (tmp_path / "installation.key").read_bytes() == kept
