"""A file that arrives here: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandreel_core.cli.cp import Place, place
from sandreel_core.cli.landing import Landing
from sandreel_core.cli.text import amount, clean
from sandreel_core.errors import Misconfigured


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture(params=["unnamed", "named"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Also as on a file system that has no files without a name."""
    if request.param == "named":
        opened = os.open

        def without(path: Any, flags: int, *args: Any, **more: Any) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(95, "not supported")
            return opened(path, flags, *args, **more)

        monkeypatch.setattr(os, "open", without)
    return str(request.param)


def test_it_stands_there_when_it_is_published(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "new" / "file"
    landing = Landing(target)
    landing.write(b"one ")
    assert not target.exists()
    landing.write(b"two")
    with umask(0o022):
        landing.publish(0o777)
    landing.close()
    landing.close()

    assert target.read_bytes() == b"one two"
    assert target.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in target.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("told", [0o4755, 0o7755, -0o023])
def test_what_a_session_tells_of_a_file_is_permissions_and_nothing_more(tmp_path: Path, told: int) -> None:
    """An image of one's own may have a recorder that says anything, and whoever copies may be root."""
    landing = Landing(tmp_path / "file")
    with umask(0o022):
        landing.publish(told)
    landing.close()
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o755


def test_what_was_not_published_leaves_no_trace_and_the_old_one_stays(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("old")
    landing = Landing(tmp_path / "file")
    landing.write(b"half")
    landing.close()

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "old"}


def test_it_lands_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    landing = Landing(tmp_path / "link")
    landing.publish(0o644)
    landing.close()

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == ""


@pytest.mark.parametrize("path", ["/dev/null", "/proc/nope/x", "file/below", "."])
def test_where_it_cannot_land_is_said(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured):
        Landing(tmp_path / path)
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("s1:a/b", Place("s1", "a/b")),
        ("s1:", Place("s1", "")),
        ("s1:a:b", Place("s1", "a:b")),
        ("./s1:a", Place(None, "./s1:a")),
        ("/s1:a", Place(None, "/s1:a")),
        ("a.b:c", Place(None, "a.b:c")),
        ("-", Place(None, "-")),
    ],
)
def test_places(text: str, where: Place) -> None:
    assert place(text) == where


def test_names_and_amounts() -> None:
    assert clean("a\x1b[2Jb\nc\udcff") == "a\\x1b[2Jb\\nc\\udcff"
    assert [amount(count) for count in (0, 1023, 1536, 20 << 20, 3 << 30)] == [
        *("0 B", "1023 B", "1.5 KiB", "20.0 MiB", "3.0 GiB"),
    ]
