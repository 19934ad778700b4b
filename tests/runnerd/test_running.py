"""Whole execs with real children: output, ends, timers, signals, leftovers."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from sandreel_core.bus.memory import MAX_PAYLOAD_BYTES
from sandreel_core.contract import exec as c
from sandreel_core.errors import Denied, Refused
from sandreel_core.exec import size_bytes
from sandreel_runnerd import leftovers
from sandreel_runnerd.programs import Programs
from tests.support.children import BOOT, bash, python, ran, running


def is_gone(pid: int) -> bool:
    return not leftovers.is_alive(pid)


async def until_gone(pid: int, within_s: float = 5) -> None:
    until = time.monotonic() + within_s
    while not is_gone(pid):
        assert time.monotonic() < until, f"{pid} lives"
        await asyncio.sleep(0.01)


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


async def test_a_grandchild_that_holds_the_pipe_delays_the_end_by_2_s_at_most(tmp_path: Path) -> None:
    started = time.monotonic()
    async with running(tmp_path, argv=bash("echo one; sleep 60 & echo $!")) as run:
        exited = await run.end()
        assert 1.9 < time.monotonic() - started < 4
        assert exited.leftovers == 1
        assert exited.duration_ms < 1500
        pid = int(run.recorder.output().split()[1])
    assert not is_gone(pid)
    os.kill(pid, signal.SIGKILL)


async def test_a_chatty_grandchild_does_not_keep_the_exec_open(tmp_path: Path) -> None:
    async with running(tmp_path, argv=bash("yes & echo $! >&2"), leftovers="keep") as run:
        await run.end(8)
        pid = int(run.recorder.output("stderr"))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("policy", ["keep", "kill"])
async def test_a_daemon_that_calls_setsid_is_found_by_its_marker(tmp_path: Path, policy: str) -> None:
    script = "setsid sleep 60 >/dev/null 2>&1 </dev/null & echo $!; exit 0"
    exited, record = await ran(tmp_path, argv=bash(script), leftovers=policy)
    pid = int(record.output())
    assert (exited.exit_code, exited.reason, exited.leftovers) == (0, "exited", 1)
    if policy == "kill":
        await until_gone(pid)
    else:
        assert not is_gone(pid)
        os.kill(pid, signal.SIGKILL)


async def test_an_exec_that_is_left_while_leftovers_are_killed_gives_its_pid_back_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What kills by the number of a group must not do so when the number may be somebody else's."""
    loop, searching, go = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    owned_at_the_end: list[bool] = []

    def find(marks: leftovers.Marks) -> list[int]:
        loop.call_soon_threadsafe(searching.set)
        assert go.wait(10)
        owned_at_the_end.append(os.getpgid(marks.leader) == marks.leader)
        return []

    monkeypatch.setattr(leftovers, "find", find)
    async with running(tmp_path, argv=["true"], leftovers="kill") as run:
        async with asyncio.timeout(10):
            await searching.wait()
        for _ in range(2):
            run.task.cancel()
            await asyncio.wait({run.task}, timeout=0.05)
        assert not run.task.done()
        go.set()
        await asyncio.wait({run.task})
        assert run.task.cancelled()
    # One search: the second was not begun.
    assert owned_at_the_end == [True]


async def test_cancel_is_sigterm_and_the_second_one_says_that_it_was_so_already(tmp_path: Path) -> None:
    async with running(tmp_path, argv=["sleep", "60"]) as run:
        assert await run.running.cancel()
        again = await run.running.cancel()
        exited = await run.end(3)
        assert not again
        assert not await run.running.cancel()
        assert run.recorder.of(c.Signalled) == [c.Signalled(signal="SIGTERM", why="cancelled")]
    assert (exited.exit_code, exited.signal, exited.reason, exited.oom) == (None, "SIGTERM", "cancelled", False)


async def test_what_ignores_sigterm_gets_sigkill_5_s_later(tmp_path: Path) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 60 & wait; done"
    async with running(tmp_path, argv=bash(script)) as run:
        await run.until_output(b"ready")
        at = time.monotonic()
        await run.running.cancel()
        exited = await run.end(9)
        assert 4.9 < time.monotonic() - at < 7
        assert [event.signal for event in run.recorder.of(c.Signalled)] == ["SIGTERM", "SIGKILL"]
    assert (exited.signal, exited.reason, exited.leftovers, exited.oom) == ("SIGKILL", "cancelled", 0, False)


async def test_a_cancel_reaches_the_whole_group(tmp_path: Path) -> None:
    async with running(tmp_path, argv=bash("sleep 60 & sleep 60 & echo $!; wait")) as run:
        await run.until_output(b"\n")
        pid = int(run.recorder.output())
        await run.running.cancel()
        exited = await run.end(3)
    assert exited.leftovers == 0
    await until_gone(pid)


async def test_a_clean_exit_on_sigterm_keeps_its_code(tmp_path: Path) -> None:
    async with running(tmp_path, argv=bash("trap 'exit 0' TERM; echo r; while :; do sleep 0.01; done")) as run:
        await run.until_output(b"r")
        await run.running.stop()
        exited = await run.end(4)
    assert (exited.exit_code, exited.signal, exited.reason) == (0, None, "stopped")


async def test_the_deadline_is_named(tmp_path: Path) -> None:
    exited, record = await ran(tmp_path, argv=["sleep", "60"], timeout_s=0.2)
    assert (exited.signal, exited.reason) == ("SIGTERM", "deadline")
    assert record.of(c.Signalled)[0].why == "deadline"


async def test_silence_is_named_and_output_postpones_it(tmp_path: Path) -> None:
    script = "for i in 1 2 3 4; do echo $i; sleep 0.15; done; sleep 60"
    exited, record = await ran(tmp_path, argv=bash(script), no_output_timeout_s=0.5)
    assert record.output() == b"1\n2\n3\n4\n"
    assert exited.reason == "no_output"


async def test_a_full_record_is_not_the_programs_silence(tmp_path: Path) -> None:
    async with running(tmp_path, argv=bash("echo a; exec sleep 0.6"), no_output_timeout_s=0.4) as run:
        run.recorder.open.clear()
        await asyncio.wait([run.task], timeout=0.9)
        run.recorder.open.set()
        exited = await run.end()
    assert exited.reason == "exited"


async def test_the_orphan_timer_stands_still_until_runnerd_is_connected(tmp_path: Path) -> None:
    async with running(tmp_path, argv=["sleep", "60"], orphan_timeout_s=0.3) as run:
        await run.until_started()
        await asyncio.wait([run.task], timeout=0.5)
        assert not run.task.done()
        run.attended = lambda: True
        run.running.look()
        for _ in range(3):
            await asyncio.wait([run.task], timeout=0.2)
            run.running.keepalive()
        assert not run.task.done()
        exited = await run.end(3)
    assert exited.reason == "orphaned"


async def test_the_orphan_timer_kills_nobody_before_it_has_asked_whether_runnerd_is_connected(tmp_path: Path) -> None:
    """It was when the timer began, and is no more when it is due."""
    asked, again = 0, asyncio.Event()

    def attended() -> bool:
        nonlocal asked
        asked += 1
        if asked > 1:
            again.set()
        return asked == 1

    async with running(tmp_path, argv=["sleep", "60"], orphan_timeout_s=0.1) as run:
        run.attended = attended
        async with asyncio.timeout(10):
            await again.wait()
        await run.running.stop()
        assert (await run.end()).reason == "stopped"


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGTERM"])
async def test_a_signal_death_has_no_exit_code(tmp_path: Path, name: str) -> None:
    async with running(tmp_path, argv=["sleep", "60"]) as run:
        await run.until_started()
        await run.running.signal(name)
        exited = await run.end()
        assert run.recorder.of(c.Signalled) == [c.Signalled(signal=name, why="asked")]
    assert (exited.exit_code, exited.signal, exited.reason) == (None, name, "exited")


async def test_a_signal_that_does_not_exist_and_an_exec_that_has_ended(tmp_path: Path) -> None:
    async with running(tmp_path, argv=["sleep", "60"]) as run:
        with pytest.raises(Refused, match="BAD_REQUEST"):
            await run.running.signal("SIGNONE")
        await run.running.signal("SIGKILL")
        await run.end()
        for late in (run.running.signal("SIGTERM"), run.running.resize(1, 1), run.running.write_stdin(b"", True)):
            with pytest.raises(Refused, match="EXEC_NOT_FOUND"):
                await late


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


async def test_a_kill_does_not_wait_for_the_log(tmp_path: Path) -> None:
    async with running(tmp_path, argv=["sleep", "60"], timeout_s=0.1) as run:
        pid = (await run.until_started()).pid
        run.recorder.open.clear()
        await until_gone(pid)
        run.recorder.open.set()
        assert (await run.end()).reason == "deadline"


async def test_an_exec_whose_record_is_closed_is_killed(tmp_path: Path) -> None:
    async with running(tmp_path, argv=bash("echo $$; exec sleep 60")) as run:
        pid = (await run.until_started()).pid

        async def deny(event: object, **_: object) -> None:
            raise Denied("dead boot")

        run.recorder.record = deny  # type: ignore[method-assign]
        with pytest.raises(Denied):
            await run.running.signal("SIGCONT")
        asyncio.get_running_loop().call_soon(
            lambda: asyncio.ensure_future(run.running.cancel()).add_done_callback(
                lambda done: done.cancelled() or done.exception()
            )
        )
        with pytest.raises(Denied):
            await run.end()
    await until_gone(pid)


async def test_a_cancelled_run_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, argv=["sleep", "60"]) as run:
        pid = (await run.until_started()).pid
    await until_gone(pid)
