"""What a terminal is spared."""

from __future__ import annotations

import io

import pytest

from sandreel_core.cli.interactive import draws, has_colours


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "drawn", "coloured"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_who_wants_no_colours_has_none_and_a_dumb_terminal_nothing_at_all(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], drawn: bool, coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert (draws(Terminal()), has_colours(Terminal())) == (drawn, coloured)
    assert (draws(io.StringIO()), has_colours(io.StringIO())) == (False, False)
