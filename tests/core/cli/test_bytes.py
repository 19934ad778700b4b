"""Names and arguments that are not UTF-8, which no message can hold, and a FIFO that nobody writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from sandreel_core.cli.copying import Copying, Left
from sandreel_core.cli.entry import main
from sandreel_core.cli.progress import Progress

pytestmark = pytest.mark.timeout(30)


@pytest.mark.parametrize(
    "argv", [["exec", "s1", "--", "\udcff"], ["env", "s1", "set", "A=\udcff"], ["cp", "a", "s1:\udcff"]]
)
def test_an_argument_that_is_not_utf8_is_told_in_a_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "is not UTF-8" in told


async def test_what_cannot_be_copied_of_a_directory_is_told_and_left(tmp_path: Path) -> None:
    (tmp_path / "\udcff").write_text("x")
    os.mkfifo(tmp_path / "fifo")

    class Nowhere:
        async def kind(self, _: str) -> None:
            return None

    copying = Copying(cast("Any", Nowhere()), "s1", Progress(shown=False))
    steps = [step async for step in copying.into(tmp_path, "to")]
    assert [(type(step), step.source.rpartition("/")[2]) for step in steps] == [(Left, "fifo"), (Left, "\\xff")]
    with pytest.raises(Exception, match="no file and no directory"):
        await anext(copying.into(tmp_path / "fifo", "to"))
