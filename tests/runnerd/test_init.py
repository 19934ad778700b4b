"""PID 1's duties: an agent cannot end its recorder, strangers are reaped, exit codes stay right."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandreel_runnerd import seccomp
from tests.support.namespaces import as_pid_1, needs_pid_namespace, pid_1_of

ROOT = Path(__file__).parents[2]


@contextmanager
def init_child(*words: str, scenario: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [*words, sys.executable, "-m", "tests.support.init_child", scenario]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


@needs_pid_namespace
def test_signals_from_inside_do_not_end_pid_1_and_one_from_outside_does() -> None:
    with init_child(*(as_pid_1() or ()), scenario="attack") as process:
        # `kill -KILL -1` spares the caller and PID 1.
        assert line(process) == "attacked 1 6/None"
        assert line(process) == "forged 7/None"
        assert line(process) == "alive 5/None serving"
        os.kill(pid_1_of(process.pid), signal.SIGTERM)
        assert line(process) == "ended"
        assert process.wait(10) == 3
        assert process.stderr is not None
        log = process.stderr.read().decode()
    # An agent cannot fill the log.
    assert log.count("signal from inside ignored") == 1
    assert "Traceback" not in log


@needs_pid_namespace
def test_5000_orphans_are_reaped_and_exit_codes_stay_right() -> None:
    with init_child(*(as_pid_1() or ()), scenario="orphans") as process:
        codes = " ".join(f"{index}/None" for index in range(1, 8))
        assert line(process) == f"endings 9/None {codes} reaped True"


def test_a_plain_child_ends_at_a_signal_and_reaps_what_is_left_to_it() -> None:
    with init_child(scenario="orphans") as process:
        codes = " ".join(f"{index}/None" for index in range(1, 8))
        assert line(process).startswith(f"endings 9/None {codes} reaped")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        assert children == "", "a subreaper is left the orphans, and reaps them"
        process.send_signal(signal.SIGTERM)
        assert line(process) == "ended"
        assert process.wait(10) == 3
        assert process.stderr is not None
        assert process.stderr.read() == b"", "asyncio's full buffer of signals is nobody's business"


def test_memory_and_environment_are_closed_to_the_same_user() -> None:
    with init_child(scenario="wait") as process:
        assert line(process).startswith("waiting")
        # /proc/<pid> belongs to root once the process is not dumpable (proc(5)), whoever runs it.
        status = Path(f"/proc/{process.pid}/environ").stat()
        assert (status.st_uid, status.st_gid) == (0, 0)
        process.send_signal(signal.SIGHUP)
        assert line(process) == "ended"


@pytest.mark.skipif(os.uname().machine not in seccomp.MACHINES, reason="the filter is not known for this machine")
def test_an_exec_cannot_reach_its_recorder_by_being_the_same_user() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with init_child(scenario="fenced") as process:
        assert line(process) == "fenced True"
        assert line(process) == "tried 8/None"
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == os.getpriority(os.PRIO_PROCESS, 0)
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == before
        process.send_signal(signal.SIGTERM)
        assert line(process) == "ended"
        assert process.wait(10) == 3
