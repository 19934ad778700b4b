"""Whole execs with real children: what is recorded of them, what they get, and when they wait."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import msgspec
import pytest

from sandreel_core.bus.memory import MAX_PAYLOAD_BYTES
from sandreel_core.contract import exec as c
from sandreel_core.exec import size_bytes
from sandreel_runnerd.programs import Programs
from tests.support.children import BOOT, bash, python, ran, running


async def test_started_is_first_exited_is_last_and_both_streams_are_recorded(tmp_path: Path) -> None:
    exited, record = await ran(tmp_path, argv=bash("echo out; echo err >&2; exit 7"))
    assert [type(event) for event in (record.events[0], record.events[-1])] == [c.Started, c.Exited]
    assert (record.output(), record.output("stderr")) == (b"out\n", b"err\n")
    assert (exited.exit_code, exited.signal, exited.reason, exited.oom) == (7, None, "exited", False)
    assert exited.lines == {"stdout": 1, "stderr": 1}
    assert exited.bytes == {"stdout": 4, "stderr": 4}
    assert exited.cpu_ms is not None
    assert exited.max_rss_bytes is not None
    assert exited.max_rss_bytes > 500_000


async def test_a_long_exec_says_now_and_then_what_is_in_its_record(tmp_path: Path) -> None:
    """Exactly what stands before it, also of two pipes that are read at once."""
    code = "import os\nfor i in range(400): os.write(1 + i % 2, b'\\xff\\n' if i % 7 else 'ä\\n'.encode() * 2); os.sched_yield()"
    exited, record = await ran(tmp_path, argv=python(code))
    lines: dict[c.Stream, int] = {}
    printed: dict[c.Stream, int] = {}
    told = blocks = 0
    for event in record.events:
        if isinstance(event, c.Output):
            blocks += 1
            lines[event.stream] = lines.get(event.stream, 0) + event.count
            printed[event.stream] = printed.get(event.stream, 0) + size_bytes(event)
        elif isinstance(event, c.Progress):
            told += 1
            assert (event.lines, event.bytes) == (lines, printed)
            assert blocks == told * c.PROGRESS_BLOCKS
    assert told == blocks // c.PROGRESS_BLOCKS
    assert (exited.lines, exited.bytes) == (lines, printed)


async def test_shell_is_a_login_bash(tmp_path: Path) -> None:
    exited, record = await ran(tmp_path, shell='shopt -q login_shell && echo "$0 $PWD"; exit 3')
    assert record.output() == f"bash {tmp_path}\n".encode()
    assert exited.exit_code == 3


async def test_exit_before_the_first_read(tmp_path: Path) -> None:
    exited, record = await ran(tmp_path, argv=["true"])
    assert (exited.exit_code, record.output(), exited.leftovers) == (0, b"", 0)


async def test_half_a_line_is_shown_and_continued(tmp_path: Path) -> None:
    async with running(tmp_path, argv=bash("printf half; read -r; echo ' done'"), stdin="hold") as run:
        await run.until_output(b"half")
        await run.running.write_stdin(b"\n", False)
        await run.end()
        blocks = run.recorder.of(c.Output)
    assert [(b.line, b.count, b.text, b.eol) for b in blocks] == [(1, 0, "half", False), (1, 1, " done\n", True)]


async def test_a_line_of_10_mb(tmp_path: Path) -> None:
    exited, record = await ran(tmp_path, argv=python("import sys; sys.stdout.write('x' * 10_000_000 + '\\n')"))
    assert record.output() == b"x" * 10_000_000 + b"\n"
    assert exited.lines["stdout"] == 1
    assert {block.line for block in record.of(c.Output)} == {1}


async def test_invalid_utf8_and_nul(tmp_path: Path) -> None:
    data = bytes(range(256)) * 100
    _, record = await ran(tmp_path, argv=python("import os; os.write(1, bytes(range(256)) * 100)"))
    assert record.output() == data


async def test_3_mb_of_what_is_six_times_as_long_in_json(tmp_path: Path) -> None:
    line = "b'\\x1b' * 999 + b'\\n'"
    exited, record = await ran(tmp_path, argv=python(f"import sys; sys.stdout.buffer.write(({line}) * 3000)"))
    assert record.output() == (b"\x1b" * 999 + b"\n") * 3000
    assert (exited.lines["stdout"], exited.bytes["stdout"]) == (3000, 3_000_000)
    assert max(len(msgspec.json.encode(block)) for block in record.of(c.Output)) <= MAX_PAYLOAD_BYTES


async def test_8_mb_without_a_cap_on_either_stream(tmp_path: Path) -> None:
    code = "import sys; [print('y' * 99, file=f) for f in (sys.stdout, sys.stderr) for _ in range(80_000)]"
    exited, record = await ran(tmp_path, argv=[*python(code)[:3], "-c", code])
    assert exited.bytes == {"stdout": 8_000_000, "stderr": 8_000_000}
    assert record.output() == record.output("stderr") == b"y" * 99 * 0 + (b"y" * 99 + b"\n") * 80_000
    assert not record.of(c.Truncated)


async def test_a_cap_cuts_at_the_exact_byte_and_the_program_goes_on(tmp_path: Path) -> None:
    exited, record = await ran(
        tmp_path, argv=bash("printf %s 0123456789; sleep 0.1; echo more; echo err >&2; exit 4"), stdout_max_bytes=8
    )
    assert record.output() == b"01234567"
    assert record.output("stderr") == b"err\n"
    assert record.of(c.Truncated) == [c.Truncated(stream="stdout", limit_bytes=8)]
    assert (exited.exit_code, exited.bytes["stdout"]) == (4, 8)


async def test_a_cap_that_is_just_met_cuts_nothing(tmp_path: Path) -> None:
    _, record = await ran(tmp_path, argv=bash("printf 01234567 >&2"), stderr_max_bytes=8)
    assert record.output("stderr") == b"01234567"
    assert not record.of(c.Truncated)


async def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("no program\n")
    for argv, problem in ((["no-such-program"], "No such file"), ([str(script)], "Permission denied")):
        exited, record = await ran(tmp_path, argv=argv)
        assert (exited.reason, exited.exit_code, exited.signal) == ("spawn_failed", None, None)
        assert problem in (exited.message or "")
        assert not record.of(c.Started)


async def test_a_program_is_found_by_the_path_of_its_exec(tmp_path: Path) -> None:
    """Which begins with the programs that ask for leases, of which runnerd's own PATH has none."""
    programs = Programs(tmp_path / "leases", os.environ)
    exited, record = await ran(tmp_path, argv=["sandreel-credential"], programs=programs)
    assert (exited.reason, exited.message) == ("exited", None)
    assert b"sandreel-credential" in record.output("stderr")


async def test_the_environment_has_markers_and_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDREEL_TOKEN", "s3cret")
    env = {"B": "exec", "path": "/bad", "http_proxy": "x", "SANDREEL_BOOT": "forged"}
    _, record = await ran(tmp_path, exec="e1", argv=["env", "-0"], store={"A": "store", "B": "store"}, env=env)
    seen = dict(pair.split("=", 1) for pair in record.output().decode().rstrip("\0").split("\0"))
    assert (seen["A"], seen["B"], seen["SANDREEL_BOOT"], seen["SANDREEL_EXEC_ID"]) == ("store", "exec", BOOT, "e1")
    assert seen["PATH"] == os.environ["PATH"]
    assert not {"path", "http_proxy", "SANDREEL_TOKEN"} & set(seen)
    assert record.of(c.Started)[0].env_names == ["B"]


async def test_the_child_steps_back_and_inherits_no_descriptor(tmp_path: Path) -> None:
    code = (
        "import os, time; print(os.getsid(0) == os.getpid(), sorted(os.listdir('/proc/self/fd')));"
        f"[time.sleep(0.01) for _ in range(500) if os.getpriority(0, 0) == {os.getpriority(os.PRIO_PROCESS, 0)}];"
        "input(); print(os.getpriority(0, 0), open('/proc/self/oom_score_adj').read())"
    )
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        async with running(tmp_path, argv=python(code), stdin="hold") as run:
            await run.until_output(b"\n")
            await run.running.write_stdin(b"\n", True)
            await run.end()
            own, nice, score = run.recorder.output().decode().replace("\n", " ").rsplit(maxsplit=2)
    finally:
        os.close(leak)
    assert own == "True ['0', '1', '2', '3']"
    assert int(nice) > os.getpriority(os.PRIO_PROCESS, 0)
    assert int(score) > int(Path("/proc/self/oom_score_adj").read_text())


async def test_a_rate_limit_makes_the_child_wait_and_says_so_once(tmp_path: Path) -> None:
    async with running(
        tmp_path, argv=bash("head -c 60000 /dev/zero; echo end >&2"), rate_limit_bytes_per_s=40_000
    ) as run:
        at = time.monotonic()
        exited = await run.end()
        assert time.monotonic() - at > 0.9
        assert run.recorder.of(c.Throttled) == [c.Throttled(bytes_per_s=40_000)]
    assert exited.bytes["stdout"] == 60_000


async def test_while_the_record_waits_the_pipe_is_not_read(tmp_path: Path) -> None:
    code = "import os,sys\nfor i in range(64): os.write(1, b'z' * 65536); os.write(2, b'.')"
    async with running(tmp_path, argv=python(code)) as run:
        await run.until_started()
        run.recorder.open.clear()
        await asyncio.wait([run.task], timeout=0.5)
        assert not run.task.done()
        assert len(run.recorder.output()) < 2_000_000
        run.recorder.open.set()
        exited = await run.end()
    assert exited.bytes["stdout"] == 64 * 65536


async def test_a_hold_makes_the_child_wait_but_not_its_end(tmp_path: Path) -> None:
    async with running(tmp_path, argv=bash("read -r; echo out"), stdin="hold") as run:
        await run.until_started()
        run.running.hold(True)
        await run.running.write_stdin(b"\n", False)
        exited = await run.end()
    assert exited.bytes["stdout"] == 4
