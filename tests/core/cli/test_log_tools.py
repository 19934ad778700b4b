"""state, tail, cast, events and commands as a user types them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support import asciicast
from tests.support.shell import Shell
from tests.support.terminal import Terminal

# state


async def test_show_at_a_cursor_tells_what_ran_and_what_it_had_printed(shell: Shell) -> None:
    await shell("exec", "s1", "--id", "x1", "--", "print", "one\n", "two\nthr", "ee\n")
    items = (await shell("attach", "s1", "x1", "--json")).objects
    cursor = next(item["cursor"] for item in items if item.get("data", {}).get("text") == "two\nthr")

    shown = (await shell.here("session", "show", "s1", "--at", cursor, "--json")).objects[0]

    [one] = shown["execs"]
    assert (shown["phase"], shown["at"], one["exec"], one["phase"]) == ("ready", cursor, "x1", "running")
    assert one["lines"] == {"stdout": 2}
    assert [(line["line"], line["text"], line["ended"]) for line in one["last"]] == [
        (1, "one", True),
        (2, "two", True),
        (3, "thr", False),
    ]
    people = (await shell.here("session", "show", "s1", "--at", cursor)).out.decode()
    assert "thr (no newline yet)" in people
    assert "ttl s              86400\n" in people
    assert "running" in people


async def test_state_at_a_time_is_that_of_what_the_server_had_stored(shell: Shell) -> None:
    await shell("exec", "s1", "--id", "x1", "--", "print", "one\n")
    items = (await shell("attach", "s1", "x1", "--json")).objects
    printed_at = next(item["stored_at"] for item in items if item["type"] == "exec.output")

    before = (await shell.here("state", "--at", "2001-01-01", "--json")).objects
    then = (await shell.here("state", "--at", printed_at, "--json")).objects
    now = (await shell.here("state", "--json")).objects
    long_ago = (await shell.here("state", "--at", "-1d")).out.decode()

    assert before == []
    assert [each["phase"] for each in then[0]["execs"]] == ["running"]
    assert [each["phase"] for each in now[0]["execs"]] == ["exited"]
    assert long_ago.startswith("as of ")


# tail


async def test_tail_shows_history_then_what_comes_without_a_seam(shell: Shell) -> None:
    await shell.here("session", "create", "s2")
    await shell("exec", "s1", "--id", "x1", "--", "lines", "250")
    await shell("exec", "s2", "--id", "x2", "--", "err", "oops\n")
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(60), shell.started("tail", "--org", "default", "--json") as process:
        assert process.stdout is not None
        while not found or found[-1]["type"] != "caught_up":
            found.append(json.loads(await process.stdout.readline()))
        assert [each["text"] for each in found if each.get("exec") == "x1"] == [f"line {n}" for n in range(1, 251)]
        assert [(each["stream"], each["text"]) for each in found if each.get("exec") == "x2"] == [("stderr", "oops")]
        await shell("exec", "s2", "--id", "x3", "--", "lines", "150")
        for number in range(1, 151):
            line = json.loads(await process.stdout.readline())
            assert (line["session"], line["exec"], line["line"], line["text"]) == ("s2", "x3", number, f"line {number}")
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


async def test_tail_says_who_is_not_there_and_refuses_a_partition_that_is_not(shell: Shell) -> None:
    missing = await shell("tail", "s1", "nosuch", "--no-follow")
    epoch = json.loads((await shell("events", "--json")).out.splitlines()[0])["cursor"].partition(":")[0]
    elsewhere = await shell("tail", "--since", f"{epoch}:7:5", "--no-follow")

    assert (missing.code, missing.err) == (0, "sandreel: there is no session nosuch in org default\n")
    assert f"cursor {epoch}:7:5 is of no partition of this installation" in elsewhere.err


async def test_a_name_that_is_no_variables_is_said_so(shell: Shell) -> None:
    for words in (["set", "1A=2"], ["unset", "A-B"]):
        done = await shell("env", "s1", *words)
        assert "is no name of a variable: 1 to 128 letters, digits and _" in done.err


async def test_tail_filters_and_says_how_to_go_on(shell: Shell) -> None:
    await shell("exec", "s1", "--id", "x1", "--", "lines", "30")

    matching = await shell("tail", "s1", "--grep", "[12]7$", "--no-follow")
    errors = await shell("tail", "s1", "--stream", "stderr", "--no-follow")
    events = await shell("tail", "s1", "--events", "--grep", "nothing", "--no-follow", "--json")
    async with Terminal(shell.argv("tail", "s1"), shell.environ) as terminal:
        await terminal.until("line 30")
        await terminal.press_ctrl_c()
        assert await terminal.wait() == 130

    assert matching.out == b"s1/x1: line 17\ns1/x1: line 27\n"
    assert errors.out == b""
    assert {"session.requested", "exec.accepted", "exec.exited"} <= {each["type"] for each in events.objects}
    cursor = terminal.text.rpartition("--since ")[2].split()[0]
    assert (await shell("tail", "s1", "--since", cursor, "--no-follow")).out == b""


async def test_views_that_do_not_answer_are_done_without(shell: Shell) -> None:
    await shell("exec", "s1", "--id", "x1", "--", "print", "one\n")
    with (shell.data / "client.toml").open("a") as settings:
        settings.write('[postgres]\ndsn = "postgresql://nobody:nothing@127.0.0.1:9/nowhere"\n')

    done = await shell("tail", "s1", "--since", "-1h", "--no-follow")

    assert (done.code, done.out, done.err) == (0, b"s1/x1: one\n", "")


async def test_what_a_job_printed_does_not_steer_the_terminal(shell: Shell) -> None:
    await shell("exec", "s1", "--id", "x1", "--", "print", "\x1b[31mred\x1b[0m \x1b[2J\x07 \x9b2J end\n")

    async with Terminal(shell.argv("tail", "s1", "--no-follow"), shell.environ) as terminal:
        await terminal.wait()
        await terminal.until("end")

    assert "red \\x1b[2J\\x07 \\x9b2J end" in terminal.text


@pytest.mark.parametrize(
    "command",
    ["tail s1 --json --no-follow", "events", "events --raw", "state --json", "attach s1 x1 --json"],
)
async def test_json_on_a_terminal_does_not_steer_it(shell: Shell, command: str) -> None:
    """DEL and the C1 controls, which JSON leaves as they are."""
    printed = "\x9b2J\x90\x85\x7fend"
    await shell("exec", "s1", "--id", "x1", "--", "print", printed + "\n")

    async with Terminal(shell.argv(*command.split()), shell.environ, cols=2000) as terminal:
        assert await terminal.wait() == 0
        await terminal.until("end")
    text = terminal.text

    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert printed in json.dumps([json.loads(line) for line in text.splitlines()], ensure_ascii=False)


# cast


async def test_cast_is_an_asciicast_of_the_exec(shell: Shell, tmp_path: Path) -> None:
    await shell("exec", "s1", "--id", "x1", "--", "print", "h\x1b[1mé", "llo\nworld\n")
    file = tmp_path / "x1.cast"

    written = await shell("cast", "s1", "x1", "-o", str(file), "--idle-limit", "2s", "--json")
    piped = await shell("cast", "s1", "x1", "--idle-limit", "2s")
    again = await shell("cast", "s1", "x1", "-o", str(file))
    forced = await shell("cast", "s1", "x1", "-o", str(file), "--force")

    recording = asciicast.parse(piped.out.decode())
    assert recording.output == "h\x1b[1méllo\r\nworld\r\n"
    assert recording.of("x") == ["0"]
    assert recording.header["idle_time_limit"] == 2
    assert recording.header["title"] == "default/s1/x1"
    assert recording.header["command"].startswith("print ")
    assert written.objects[0]["events"] == len(recording.events)
    assert (again.code, forced.code) == (2, 0)
    assert asciicast.parse(file.read_text()).events == recording.events
    assert [each.name for each in tmp_path.iterdir() if "x1" in each.name] == ["x1.cast"]


async def test_a_live_cast_that_is_ended_early_is_whole_and_a_killed_one_leaves_no_half_file(
    shell: Shell, tmp_path: Path
) -> None:
    await shell("exec", "-d", "s1", "--id", "x1", "--", "stubborn")
    for end, names in ((signal.SIGINT, ["live.cast"]), (signal.SIGTERM, [])):
        folder = tmp_path / end.name
        folder.mkdir()
        live = shell.started("cast", "s1", "x1", "--live", "-o", str(folder / "live.cast"))
        async with asyncio.timeout(60), live as process:
            while not any(each.stat().st_size for each in folder.iterdir()):
                await asyncio.sleep(0.02)
            process.send_signal(end)
            await process.wait()
        assert [each.name for each in folder.iterdir() if not each.name.startswith(".")] == names
    assert asciicast.parse((tmp_path / "SIGINT" / "live.cast").read_text()).output == "ready\r\n"
    await shell("cancel", "s1", "x1")


# events, commands


async def test_events_are_the_log_filtered(shell: Shell) -> None:
    await shell("exec", "s1", "--id", "x1", "--", "print", "one\n")
    await shell("exec", "s1", "--id", "x2", "--", "print", "two\n")

    every = (await shell("events", "--all")).objects
    ends = (await shell("events", "--session", "s1", "--exec", "x1", "--exec", "x2", "--type", "exec.ex*")).objects
    rest = (await shell("events", "--since", every[2]["cursor"], "--until", every[4]["cursor"])).objects
    raw = (await shell("events", "--raw", "--type", "exec.output")).objects

    assert [each["event"]["type"] for each in every[:3]] == [
        *("session.requested", "session.provisioned", "session.ready")
    ]
    assert [each["subject"].rpartition(".")[2] for each in ends] == ["x1", "x2"]
    assert rest == every[3:5]
    assert [each["data"]["text"] for each in raw] == ["one\n", "two\n"]


async def test_events_follow_what_comes(shell: Shell) -> None:
    async with asyncio.timeout(60), shell.started("events", "--follow", "--type", "exec.exited") as process:
        assert process.stdout is not None
        await shell("exec", "s1", "--id", "x1", "--", "exit", "3")
        assert json.loads(await process.stdout.readline())["event"]["data"]["exit_code"] == 3


async def test_commands_have_their_outcomes(shell: Shell) -> None:
    await shell("exec", "s1", "--id", "x1", "--", "print", "one\n")
    await shell("exec", "s1", "--", "refuse", "EXEC_LIMIT")
    await shell.here("session", "pin", "s1")

    found = (await shell.here("commands", "s1", "--json")).objects
    refused = (await shell.here("commands", "--state", "refused", "--json")).objects
    people = (await shell.here("commands")).out.decode()

    assert [(each["type"], each["state"], each["outcome"]) for each in found] == [
        ("session.create", "done", "session.requested"),
        ("exec.start", "done", "exec.accepted"),
        ("exec.start", "refused", "command.refused"),
        ("session.pin", "done", "session.pinned"),
    ]
    assert [(each["code"], each["id"]) for each in refused] == [("EXEC_LIMIT", found[2]["id"])]
    assert (await shell.here("commands", "--id", found[1]["id"], "--json")).objects == [found[1]]
    assert all(each["took_ms"] >= 0 for each in found)
    assert "EXEC_LIMIT: as the test asked" in people
    assert f"cli:{os.environ.get('USER', '').strip() or f'uid-{os.getuid()}'}" in people


# Mistakes


MISTAKES = [
    (["session", "show", "s1", "--at", "soon"], "soon"),
    (["session", "show", "s1", "--at", "e9:0:1"], "epoch"),
    (["session", "show", "s1", "--at", "e1:0:999999"], "behind the end"),
    (["session", "show", "s1", "--at", "2001-01-01"], "no session s1"),
    (["session", "show", "nope", "--at", "-1s"], "no session nope"),
    (["session", "show", "s1", "--at", "-1x"], "duration"),
    (["state", "--org", "a*"], "org"),
    (["state", "--last", "101"], "--last"),
    (["tail", "s1", "--all"], "--all"),
    (["tail", "--org", "acme", "--all"], "not both"),
    (["tail", "s1", "--grep", "(a"], "missing )"),
    (["tail", "s1", "--grep", r"(a)\1"], "RE2"),
    (["tail", "s1", "--grep", "(?:a?){900}a{900}"], "too large"),
    (["tail", "s1", "--grep", "a" * 1001], "1000"),
    (["cast", "s1", "nope"], "no exec nope"),
    (["cast", "s1", "nope", "-o", "/nowhere/x.cast"], "no exec nope"),
    (["events", "--exec", "a.b"], "exec"),
    (["events", "--since", "yesterday"], "yesterday"),
    (["commands", "--id", "7"], "UUIDv7"),
    (["commands", "--id", "01900000-0000-7000-8000-000000000000"], "no command"),
    (["commands", "--limit", "0"], "limit"),
    (["completion", "csh"], "csh"),
]


async def test_a_mistake_is_one_line_and_exit_code_2(shell: Shell) -> None:
    for args, phrase in MISTAKES:
        done = await shell.here(*args)

        assert (done.code, done.out) == (2, b""), args
        assert done.err.count("\n") == 1, args
        assert phrase in done.err, args


@pytest.mark.parametrize("args", [["--org", "acme.>"], ["s*"]])
async def test_a_wildcard_in_a_name_is_refused(shell: Shell, args: list[str]) -> None:
    done = await shell("tail", *args)  # a process of its own: it counts Ctrl-C, which only a main thread can

    assert (done.code, done.out, done.err.count("\n")) == (2, b"", 1)
    assert "A-Z a-z 0-9 _ -" in done.err
