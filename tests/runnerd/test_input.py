"""Standard input and terminals: every write has a verdict, and a dead pipe is never reported ok."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from pathlib import Path

import pytest

from sandreel_core.contract import exec as c
from sandreel_core.errors import Refused
from sandreel_runnerd import input as input_module
from sandreel_runnerd.process import input_bytes
from tests.support.children import bash, python, ran, running


async def test_first_bytes_then_end(tmp_path: Path) -> None:
    _, record = await ran(tmp_path, argv=["cat"], stdin_text="héllo\n")
    assert record.output() == "héllo\n".encode()
    _, record = await ran(tmp_path, argv=["cat"], stdin_base64=b64encode(b"\0\xff").decode())
    assert record.output() == b"\0\xff"


async def test_hold_append_and_end(tmp_path: Path) -> None:
    async with running(tmp_path, argv=["cat"], stdin="hold", stdin_text="one ") as run:
        await run.running.write_stdin(b"two ", False)
        await run.running.write_stdin(b"three\n", True)
        with pytest.raises(Refused, match=r"STDIN_CLOSED|EXEC_NOT_FOUND"):
            await run.running.write_stdin(b"four", False)
        exited = await run.end()
        assert run.recorder.output() == b"one two three\n"
        assert run.recorder.of(c.StdinWritten) == [c.StdinWritten(bytes=4), c.StdinWritten(bytes=6, eof=True)]
    assert exited.exit_code == 0


async def test_more_than_a_pipe_holds_is_written_as_the_program_reads(tmp_path: Path) -> None:
    async with running(tmp_path, argv=bash("sleep 0.3; wc -c"), stdin="hold") as run:
        await asyncio.gather(*(run.running.write_stdin(b"k" * 65536, False) for _ in range(8)))
        await run.running.write_stdin(b"", True)
        await run.end()
        assert run.recorder.output().split() == [b"524288"]


async def test_input_that_was_not_held_is_closed(tmp_path: Path) -> None:
    for first in (None, "x"):
        async with running(tmp_path, argv=["sleep", "60"], stdin_text=first) as run:
            await run.until_started()
            with pytest.raises(Refused, match="STDIN_CLOSED"):
                await run.running.write_stdin(b"x", False)


async def test_a_dead_pipe_is_never_reported_ok_and_the_exec_is_unharmed(tmp_path: Path) -> None:
    async with running(tmp_path, argv=bash("exec <&-; echo closed; sleep 0.3; exit 5"), stdin="hold") as run:
        await run.until_output(b"closed")
        for data, eof in ((b"x", False), (b"", True), (b"", False)):
            with pytest.raises(Refused, match="STDIN_CLOSED"):
                await run.running.write_stdin(data, eof)
        exited = await run.end()
        assert not run.recorder.of(c.StdinWritten)
    assert exited.exit_code == 5


async def test_a_write_that_waits_learns_of_the_programs_end(tmp_path: Path) -> None:
    async with running(tmp_path, argv=["sleep", "60"], stdin="hold") as run:
        await run.running.write_stdin(b"k" * 65536, False)
        waiting = asyncio.create_task(run.running.write_stdin(b"k" * 65536, False))
        await asyncio.sleep(0)
        await run.running.signal("SIGKILL")
        with pytest.raises(Refused, match="WRITE_FAILED"):
            await waiting
        await run.end()


async def test_a_program_that_never_reads_is_no_error(tmp_path: Path) -> None:
    exited, _ = await ran(tmp_path, argv=["true"], stdin_text="x" * 65536)
    assert exited.exit_code == 0


def test_input_that_is_not_in_order() -> None:
    assert input_bytes(None, None) == b""
    for text, base64 in (("a", "YQ=="), (None, "!"), (None, "YQ"), ("€" * 30_000, None)):
        with pytest.raises(Refused, match="BAD_REQUEST"):
            input_bytes(text, base64)


async def test_a_terminal_echoes_is_controlling_and_can_be_resized(tmp_path: Path) -> None:
    script = "tty -s && echo yes; stty size; trap 'stty size; exit 0' WINCH; while :; do read -r x && echo got-$x; done"
    async with running(tmp_path, argv=bash(script), tty=c.Terminal(cols=100, rows=30)) as run:
        await run.until_output(b"yes\r\n30 100\r\n")
        assert (await run.running.keys(0, b"ab")).offset == 2
        assert (await run.running.keys(0, b"abc\r")).offset == 4
        await run.until_output(b"abc\r\ngot-abc\r\n")
        with pytest.raises(Refused, match="BAD_REQUEST"):
            await run.running.keys(9, b"z")
        await run.running.resize(120, 40)
        await run.running.keys(4, b"\r")
        await run.until_output(b"40 120")
        exited = await run.end()
        assert run.recorder.of(c.Resized) == [c.Resized(cols=120, rows=40)]
        written = run.recorder.of(c.StdinWritten)
        assert (sum(event.bytes for event in written), written[-1].offset) == (5, 5)
        assert len(written) <= 3
    assert list(exited.bytes) == ["stdout"]


async def test_ctrl_c_in_a_terminal_interrupts(tmp_path: Path) -> None:
    async with running(tmp_path, argv=python("print('up'); import time; time.sleep(60)"), tty=c.Terminal()) as run:
        await run.until_output(b"up")
        await run.running.keys(0, b"\x03")
        exited = await run.end()
    assert exited.signal == "SIGINT" or exited.exit_code == 130


async def test_the_end_of_a_terminals_input_is_ctrl_d(tmp_path: Path) -> None:
    async with running(tmp_path, argv=["cat"], tty=c.Terminal(), stdin="hold") as run:
        await run.running.write_stdin(b"line\n", True)
        exited = await run.end()
    assert exited.exit_code == 0
    assert exited.bytes["stdout"] == len("line\r\nline\r\n")


async def test_keys_and_resizing_need_a_terminal(tmp_path: Path) -> None:
    async with running(tmp_path, argv=["sleep", "60"], stdin="hold") as run:
        with pytest.raises(Refused, match="BAD_REQUEST"):
            await run.running.keys(0, b"x")
        with pytest.raises(Refused, match="BAD_REQUEST"):
            await run.running.resize(1, 1)


async def test_a_terminals_program_can_be_cancelled(tmp_path: Path) -> None:
    async with running(tmp_path, argv=["sleep", "60"], tty=c.Terminal()) as run:
        await run.running.cancel()
        exited = await run.end(4)
    assert (exited.signal, exited.reason) == ("SIGTERM", "cancelled")


async def test_writes_that_wait_for_the_program_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_module, "MAX_WAITING", 2)
    async with running(tmp_path, argv=["sleep", "60"], stdin="hold") as run:
        await run.until_started()
        stuck = [asyncio.ensure_future(run.running.write_stdin(b"k" * 1_000_000, False)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="STDIN_BUSY"):
            await run.running.write_stdin(b"x", False)
        await run.running.signal("SIGKILL")
        for ended in await asyncio.gather(*stuck, return_exceptions=True):
            assert isinstance(ended, Refused)
            assert ended.code in ("WRITE_FAILED", "STDIN_CLOSED", "EXEC_NOT_FOUND")
        await run.end()


async def test_keys_that_the_program_does_not_read_are_taken_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And typing goes on behind what was taken: nothing twice, nothing left out."""
    monkeypatch.setattr(input_module, "KEYS_WAIT_S", 0.05)
    script = "stty raw -echo; echo ready; sleep 60"
    async with running(tmp_path, argv=bash(script), tty=c.Terminal()) as run:
        await run.until_output(b"ready")
        keys = b"k" * 60_000
        taken = (await run.running.keys(0, keys)).offset
        assert 0 < taken < len(keys)
        assert (await run.running.keys(0, keys)).offset >= taken
        with pytest.raises(Refused, match="BAD_REQUEST"):
            await run.running.keys(len(keys), b"k")
        await run.running.signal("SIGKILL")
        await run.end()
