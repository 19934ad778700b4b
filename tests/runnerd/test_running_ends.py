"""How execs end, with real children: by themselves, cancelled, by a timer or a signal; and what they leave behind."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sandreel_core.contract import exec as c
from sandreel_core.errors import Denied, Refused
from sandreel_runnerd import leftovers
from tests.support.children import bash, ran, running


def is_gone(pid: int) -> bool:
    return not leftovers.is_alive(pid)


async def until_gone(pid: int, within_s: float = 5) -> None:
    until = time.monotonic() + within_s
    while not is_gone(pid):
        assert time.monotonic() < until, f"{pid} lives"
        await asyncio.sleep(0.01)


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
