"""What `sandreel up` prints, when there is nobody (any more) to read it."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandreel_core.cli.interrupts import ending_signals
from sandreel_core.cli.up import reporter
from sandreel_core.embedded.part import Status

READY = Status("nats", "ready", 7, "127.0.0.1:1", 0.5)


class Broken(io.StringIO):
    """A terminal that was closed, a pipe without a reader, a file on a full disk."""

    def __init__(self, number: int, descriptor: int) -> None:
        super().__init__()
        self._number, self._descriptor = number, descriptor

    def write(self, text: str) -> int:
        raise OSError(self._number, os.strerror(self._number))

    def fileno(self) -> int:
        return self._descriptor


@pytest.fixture
def descriptor() -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


@pytest.mark.parametrize(
    ("number", "forsaken"),
    [(errno.EIO, True), (errno.EPIPE, True), (errno.ENOSPC, False)],
    ids=str,
)
@pytest.mark.parametrize("as_json", [True, False])
def test_a_report_that_cannot_be_printed_raises_nothing(
    monkeypatch: pytest.MonkeyPatch, descriptor: int, number: int, forsaken: bool, as_json: bool
) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(number, descriptor))
    reporter(json=as_json)(READY)
    nowhere = Path(os.devnull).stat().st_rdev
    assert (os.fstat(descriptor).st_rdev == nowhere) is forsaken, (
        "a disk may have room again, a reader does not come back"
    )


def test_a_report_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    reporter(json=False)(READY)
    assert capsys.readouterr().out == "  nats       ready    127.0.0.1:1  pid 7  0.50 s\n"
    reporter(json=True)(READY)
    assert json.loads(capsys.readouterr().out)["part"] == "nats"


def test_a_hangup_that_was_to_be_ignored_ends_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert ending_signals() == [signal.SIGINT, signal.SIGTERM]
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert ending_signals() == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)
