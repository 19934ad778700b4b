"""The commands as a user types them: real processes, a real server, made-up roles."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.program import Done
from tests.support.shell import Shell
from tests.support.terminal import Terminal

# Execs


@pytest.mark.parametrize(
    ("job", "code"),
    [(["print", "x"], 0), (["exit", "3"], 3), (["kill", "SIGKILL"], 137), (["lost"], 125)],
)
async def test_exec_ends_with_the_jobs_exit_code(shell: Shell, job: list[str], code: int) -> None:
    assert (await shell("exec", "s1", "--", *job)).code == code


async def test_stdout_and_stderr_go_where_they_belong(shell: Shell) -> None:
    out = await shell("exec", "s1", "--", "print", "one\n", "--", "two")
    err = await shell("exec", "s1", "--", "err", "oops\n")

    assert (out.out, out.err) == (b"one\n--two", "")
    assert (err.out, err.err) == (b"", "oops\n")


async def test_piped_input_reaches_the_job_byte_for_byte(shell: Shell, tmp_path: Path) -> None:
    data = bytes(range(256)) * 1200

    assert await shell("exec", "s1", "--", "cat", stdin=data) == Done(0, data, "")
    assert await shell("exec", "s1", "--", "cat", stdin=b"") == Done(0, b"", "")
    for size in (100, len(data)):
        (tmp_path / "input").write_bytes(data[:size])
        with (tmp_path / "input").open("rb") as file:
            assert (await shell("exec", "s1", "--", "cat", stdin=file.fileno())).out == data[:size]


async def test_detach_then_attach_then_attach_after_a_cursor_sees_exactly_the_rest(shell: Shell) -> None:
    detached = await shell("exec", "-d", "s1", "--", "lines", "1000")
    exec_id = detached.out.decode().strip()

    whole = await shell("attach", "s1", exec_id)
    items = (await shell("attach", "s1", exec_id, "--json")).objects
    middle = items[len(items) // 2]
    rest = await shell("attach", "s1", exec_id, "--after", middle["cursor"])

    assert whole == Done(0, b"".join(b"line %d\n" % line for line in range(1, 1001)), "")
    before = b"".join(
        item["data"]["text"].encode() for item in items[: items.index(middle) + 1] if "text" in item.get("data", {})
    )
    assert before + rest.out == whole.out
    assert items[-1]["type"] == "exec.exited"


async def test_replay_of_some_lines(shell: Shell) -> None:
    exec_id = (await shell("exec", "-d", "--id", "x1", "s1", "--", "lines", "300")).out.decode().strip()
    await shell("attach", "s1", exec_id)

    assert (await shell("replay", "s1", "x1", "--speed", "10", "--from", "99", "--to", "101")).out == (
        b"line 99\nline 100\nline 101\n"
    )


async def test_a_reader_that_leaves_early_is_no_error_to_talk_about(shell: Shell) -> None:
    await shell("exec", "--id", "x1", "s1", "--", "lines", "20000")
    pipe = f"{' '.join(shell.argv('replay', 's1', 'x1', '--speed', 'max'))} | head -1"

    process = await asyncio.create_subprocess_shell(
        pipe, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=shell.environ
    )
    assert await process.communicate() == (b"line 1\n", b"")


async def test_cancel_ends_the_job(shell: Shell) -> None:
    await shell("exec", "-d", "--id", "x1", "s1", "--", "stubborn")

    cancelled = await shell("cancel", "s1", "x1", "--wait", "--json")
    again = await shell("cancel", "s1", "x1")

    assert cancelled.objects[0]["reason"] == "cancelled"
    assert again.code == 2


# Ctrl-C


async def test_ctrl_c_once_interrupts_the_job(shell: Shell) -> None:
    async with Terminal(shell.argv("exec", "s1", "--id", "x2", "--", "stubborn"), shell.environ) as terminal:
        await terminal.until("ready")
        await terminal.press_ctrl_c()
        await terminal.until("still here")
        assert "again" in terminal.text
        await shell("cancel", "s1", "x2")
        assert await terminal.wait() == 143


async def test_ctrl_c_twice_detaches_and_says_how_to_come_back(shell: Shell) -> None:
    async with Terminal(shell.argv("exec", "s1", "--id", "x1", "--", "stubborn"), shell.environ) as terminal:
        await terminal.until("ready")
        await terminal.press_ctrl_c()
        await terminal.until("still here")
        await terminal.press_ctrl_c()
        assert await terminal.wait() == 130
    command = re.search(r"sandreel attach s1 x1 --after (\S+) --data (\S+)", terminal.text)
    assert command is not None
    assert command[2] == str(shell.data)
    await shell("cancel", "s1", "x1")

    rest = await shell("attach", "s1", "x1", "--after", command[1])

    assert rest.code == 143
    assert rest.out == b""


async def test_ctrl_c_leaves_an_attached_job_alone(shell: Shell) -> None:
    await shell("exec", "-d", "--id", "x1", "s1", "--", "stubborn")
    async with Terminal(shell.argv("attach", "s1", "x1"), shell.environ) as terminal:
        await terminal.until("ready")
        await terminal.press_ctrl_c()
        assert await terminal.wait() == 130

    assert "--after" in terminal.text
    assert (await shell("session", "show", "s1", "--json")).objects[0]["execs"][0]["phase"] == "running"


# Sessions


async def test_the_life_of_a_session(shell: Shell) -> None:
    assert (await shell.here("session", "create")).out.startswith(b"s-")
    listed = (await shell.here("session", "ls")).out.decode().splitlines()
    assert len(listed) == 3
    assert "user:ada" in listed[2] or "user:ada" in listed[1]
    shown = (await shell.here("session", "show", "s1", "--json")).objects[0]
    assert (shown["session"], shown["phase"]) == ("s1", "ready")
    assert shown["state"] in ("Ready", "Working")
    assert (await shell.here("session", "pin", "s1")).out == b"s1 ready (pinned)\n"
    assert (await shell.here("session", "unpin", "s1")).out == b"s1 ready\n"
    assert (await shell.here("session", "extend", "s1", "1h")).code == 0
    assert (await shell.here("session", "stop", "s1")).out == b"s1 stopped\n"
    assert (await shell.here("session", "resume", "s1")).out == b"s1 ready\n"
    assert (await shell.here("session", "destroy", "s1")).out == b"s1 destroyed\n"
    assert [info["phase"] for info in (await shell.here("session", "ls", "--all", "--json")).objects] == [
        "ready",
        "destroyed",
    ]


async def test_the_list_has_the_word_that_people_read(shell: Shell) -> None:
    async def word() -> tuple[str, str]:
        """As the table and as JSON has it, of s1 alone."""
        table = (await shell.here("session", "ls")).out.decode().splitlines()
        column = table[0].index("STATE")
        [row] = [line for line in table if line.startswith("s1 ")]
        [info] = (await shell.here("session", "ls", "--json")).objects
        return row[column:].split()[0], info["state"]

    assert await word() == ("Ready", "Ready")
    assert (await shell.here("session", "pin", "s1")).code == 0
    assert await word() == ("Always-on", "Always-on")
    assert (await shell.here("exec", "s1", "--id", "x1", "--detach", "--", "stubborn")).code == 0
    assert await word() == ("Working", "Working")
    assert (await shell.here("cancel", "s1", "x1")).code == 0
    assert (await shell.here("session", "stop", "s1")).code == 0
    assert await word() == ("Sleeping", "Sleeping")


# Mistakes


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        (["exec", "s1", "--", "refuse", "EXEC_LIMIT"], "EXEC_LIMIT"),
        (["exec", "nope", "--", "print"], "SESSION_NOT_FOUND"),
        (["exec", "a b", "--", "print"], "session"),
        (["exec", "s1"], "after --"),
        (["attach", "s1", "nope"], "no exec nope"),
        (["attach", "s1", "nope", "--after", "junk"], "cursor"),
        (["session", "show", "nope"], "no session nope"),
        (["session", "create", "s1"], "SESSION_EXISTS"),
        (["session", "create", "--owner", "ada"], "TYPE:ID"),
        (["session", "stop", "nope"], "SESSION_NOT_FOUND"),
        (["replay", "s1", "nope", "--from", "soon"], "soon"),
        (["session", "ls", "--", "x"], "after --"),
        (["session", "extend", "s1", "soon"], "duration"),
    ],
)
async def test_a_mistake_is_one_line_and_exit_code_2(shell: Shell, args: list[str], phrase: str) -> None:
    done = await shell.here(*args)

    assert (done.code, done.out) == (2, b"")
    assert done.err.count("\n") == 1
    assert phrase in done.err


@pytest.mark.parametrize("args", [["session", "ls"], ["down"], ["archive"], ["streams", "ls"], ["up"]])
@pytest.mark.parametrize("closed", [True, False])
async def test_data_that_cannot_be_read_is_one_line(tmp_path: Path, args: list[str], closed: bool) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o000)
    powerless: list[str] = []
    if os.geteuid() == 0:  # whose power over files is a capability, which can be laid down
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not installed")
        os.chown(theirs, 65534, 65534)
        powerless = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-chown,-fowner"]
    data = theirs / "data" if closed else tmp_path / ("x" * 300)

    shell = Shell(data)
    process = await asyncio.create_subprocess_exec(
        *(*powerless, *shell.argv(*args)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=shell.environ
    )
    async with asyncio.timeout(30):
        _, err = await process.communicate()

    said = err.decode()
    assert (process.returncode, said.count("\n")) == (2, 1), said
    assert "give another" in said
    assert "permission denied" in said if closed else "file name too long" in said


async def test_doctor_says_that_the_data_cannot_be_read(tmp_path: Path) -> None:
    done = await Shell(tmp_path / ("x" * 300))("doctor", "--json")

    assert (done.code, done.err) == (1, "")
    found = {check["name"]: check for check in done.objects}
    assert found["data directory"]["level"] == found["stack"]["level"] == "fail"
    assert "cannot be read (file name too long)" in found["data directory"]["found"]


@pytest.mark.parametrize("args", [["doctor"], ["session", "ls"]])
async def test_a_full_target_is_one_line(shell: Shell, args: list[str]) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        process = await asyncio.create_subprocess_exec(
            *shell.argv(*args), stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, env=shell.environ
        )
        async with asyncio.timeout(30):
            _, said = await process.communicate()

    assert (process.returncode, said) == (2, b"sandreel: no space left on device\n")


async def test_a_full_target_of_a_jobs_output_says_how_to_go_on(shell: Shell) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        process = await asyncio.create_subprocess_exec(
            *shell.argv("exec", "--id", "x1", "s1", "--", "lines", "100"),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            env=shell.environ,
        )
        async with asyncio.timeout(30):
            _, said = await process.communicate()

    assert process.returncode == 2
    command = re.fullmatch(
        r"sandreel: the output cannot be written \(No space left on device\); the job goes on: "
        rf"sandreel attach s1 x1 --after (\S+) --data {re.escape(str(shell.data))}\n",
        said.decode(),
    )
    assert command is not None, said
    rest = await shell("attach", "s1", "x1", "--after", command[1])
    assert rest.out == b"".join(b"line %d\n" % line for line in range(1, 101))


async def test_without_an_installation_it_says_what_to_do(tmp_path: Path) -> None:
    done = await Shell(tmp_path)("session", "ls")

    assert done.code == 2
    assert "sandreel up" in done.err
    assert done.err.count("\n") == 1


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    program = (
        "import sys\nfrom sandreel_core.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('nats', 'sqlalchemy', 'asyncpg') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)

    assert done.stdout.splitlines()[-1] == "[]"
    assert done.returncode == 0
