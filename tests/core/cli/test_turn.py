"""`sandreel turn` and its relatives, as a person and as a program see them, against a made-up bridge."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandreel_core.client.owners import session_of
from sandreel_core.contract.message import Owner
from tests.core.cli.test_completion import answered, offered
from tests.support.fake_bridge import Bridge, fake_bridge
from tests.support.nats import Connect
from tests.support.recordings import Recording
from tests.support.shell import Shell
from tests.support.terminal import Terminal

BASH = Recording("claude-code", "bash_partial")
TABLE = [
    "  model            calls  input  cached  output     cost",
    "  claude-opus-5-5      1    840     600      40  $0.0019",
]


@pytest.fixture
async def bridge(shell: Shell, connect_bus: Connect) -> AsyncIterator[Bridge]:
    async with fake_bridge(await connect_bus()) as bridge:
        yield bridge


def without_times(text: str) -> list[str]:
    return [re.sub(r"in \d+(\.\d)? s", "in 1 s", line) for line in text.splitlines()]


async def test_a_turn_is_shown_as_text_tools_and_what_it_cost(shell: Shell, bridge: Bridge) -> None:
    done = await shell("turn", "--session", "s1", "--id", "t1", "run claude-code bash_partial")

    assert (done.code, done.err) == (0, "")
    assert without_times(done.out.decode()) == [
        "● claude-code · turn t1 · session s1",
        "> run claude-code bash_partial",
        "· claude-opus-5-5",
        "I will run it.",
        "▸ Bash echo hello-from-bash",
        "  hello-from-bash",
        "Done: the command ran.",
        "■ success in 1 s · $0.0019",
        *TABLE,
    ]
    again = await shell("turn", "show", "t1")
    assert (again.code, again.out) == (0, done.out)


async def test_programs_get_one_event_a_line(shell: Shell, bridge: Bridge) -> None:
    done = await shell("turn", "--session", "s1", "--id", "t1", "--json", "say hello")
    types = [each["type"] for each in done.objects if each["type"] != "caught_up"]
    assert types == [
        *("turn.requested", "turn.preparing", "turn.started", "agent.text", "agent.result", "turn.finished", "usage"),
    ]
    [used] = done.objects[-1]["models"]
    assert (used["model"], used["calls"], used["usage"]["cost_micro_usd"]) == ("claude-opus-5-5", 1, 1900)
    assert all(each["turn"] == "t1" and each["session"] == "s1" for each in done.objects)
    text = next(each for each in done.objects if each["type"] == "agent.text")
    assert text["data"] == {"source_n": 3, "text": "hello"}

    rest = (await shell("turn", "show", "t1", "--json", "--after", text["cursor"])).objects
    assert [each["type"] for each in rest if each["type"] != "caught_up"] == ["agent.result", "turn.finished", "usage"]
    shown = await shell("turn", "show", "t1", "--after", text["cursor"])
    assert (shown.code, shown.out.decode().splitlines()[-2:]) == (0, TABLE)
    other = await shell("turn", "show", "t1", "--after", "zz:0:1")
    assert (other.code, other.out) == (2, b"")
    assert "epoch zz" in other.err


@pytest.mark.parametrize(
    ("prompt", "code", "line"),
    [("fail the model refused", 1, "■ failed in 1 s · $0.0019"), ("plan first this", 0, "■ plan in 1 s · $0.0019")],
)
async def test_the_exit_code_says_how_it_ended(shell: Shell, bridge: Bridge, prompt: str, code: int, line: str) -> None:
    done = await shell("turn", "--session", "s1", "--id", "t1", prompt)
    assert done.code == code
    assert line in without_times(done.out.decode())


async def test_a_plan_is_decided_once_and_seen_afterwards(shell: Shell, bridge: Bridge) -> None:
    done = await shell("turn", "--session", "s1", "--id", "t1", "--plan", "plan 1. look\n2. mend")
    assert "▌ the plan\n▌ 1. look\n▌ 2. mend\n" in done.out.decode()
    assert done.err.startswith("sandreel: to let it be carried out: sandreel approve --watch t1 ")

    for _ in range(2):
        assert (await shell.here("approve", "t1")).out == b"t1-go\n"
    shown = await shell("turn", "show", "t1")
    assert "it goes on in turn t1-go" in shown.out.decode()
    assert "carried out" not in shown.err
    listed, _ = (await shell.here("turn", "list", "--json")).objects
    assert (listed["state"], listed["decided"]) == ("plan", {"next_turn": "t1-go"})
    await shell.here("turn", "--session", "s1", "--id", "t2", "--plan", "-d", "plan x")
    assert (await shell.here("reject", "t2", "--reason", "too dear")).out == b"rejected\n"
    assert ": too dear\n" in (await shell("turn", "show", "t2")).out.decode()
    await shell.here("turn", "--session", "s1", "--id", "t3", "--plan", "-d", "plan x")
    going_on = await shell("approve", "t3", "--watch")
    assert (going_on.code, "\n> say done\ndone\n" in going_on.out.decode()) == (0, True), going_on.out


async def test_a_turn_is_left_running_steered_queued_and_interrupted(shell: Shell, bridge: Bridge) -> None:
    started = await shell.here("turn", "--session", "s1", "--id", "t1", "-d", "hold")
    assert (started.code, started.out) == (0, b"t1\n")
    steered = await shell.here("steer", "t1", "look at b.py as well")
    assert steered.out.startswith(b"queued; ")
    watching = asyncio.create_task(shell("turn", "show", "t1"))
    [message] = (await shell.here("queue", "t1", "--json")).objects
    assert (message["text"], message["state"]) == ("look at b.py as well", "consumed")
    table = (await shell.here("queue", "t1")).out.decode().splitlines()
    assert table[0].split() == ["MESSAGE", "STATE", "BY", "SENT", "ACTOR", "TEXT"]
    assert (await shell.here("interrupt", "t1")).out == b"cancelled\n"
    seen = await watching

    assert seen.code == 5
    lines = without_times(seen.out.decode())
    assert "» look at b.py as well" in lines
    assert any(line.startswith("· interrupted by cli:") for line in lines)
    late = await shell.here("steer", "t1", "too late")
    assert (late.code, late.out) == (2, b"")
    assert late.err.startswith("sandreel: TURN_FINISHED")


async def test_the_owner_has_a_session_of_their_own(shell: Shell, bridge: Bridge) -> None:
    name = session_of("default", Owner(type="user", id="ada"))
    done = await shell.here("turn", "--owner", "user:ada", "-d", "--json", "say hello")
    assert done.objects[0]["session"] == name
    mine = (await shell.here("turn", "-d", "--json", "say hello")).objects[0]["session"]
    assert re.fullmatch(r"usr-.+-[0-9a-f]{16}", mine)
    rows = (await shell.here("turn", "list", name)).out.decode().splitlines()
    assert len(rows) == 2
    assert rows[1].split()[1:4] == [name, "claude-code", "success"]
    assert "$0.0019" in rows[1]


async def test_a_turn_goes_on_from_the_newest_one(shell: Shell, bridge: Bridge) -> None:
    nothing = await shell.here("turn", "--session", "s1", "-d", "-c", "say x")
    assert (nothing.code, "--continue: session s1 has had no turn" in nothing.err) == (2, True)
    await shell.here("turn", "--session", "s1", "--id", "t1", "-d", "say one")
    await shell.here("turn", "--session", "s1", "--id", "t2", "-d", "-c", "say two")
    await shell.here("turn", "--session", "s1", "--id", "t3", "-d", "-c", "say three")
    found = (await shell.here("turn", "list", "--json")).objects
    assert {each["requested"].get("conversation_id") for each in found} == {None, "t1"}
    both = await shell.here("turn", "--session", "s1", "-d", "-c", "--conversation", "c", "x")
    assert both.code == 2
    # With the same agent and model, unless another is named.
    await shell.here("turn", "--session", "s1", "-d", "--agent", "codex", "--model", "gpt", "say x")
    for more, agent, model in (
        ((), "codex", "gpt"),
        (("--model", "m"), "codex", "m"),
        (("--agent", "opencode"), "opencode", None),
    ):
        await shell.here("turn", "--session", "s1", "-d", "-c", *more, "say y")
        newest = (await shell.here("turn", "list", "--limit", "1", "--json")).objects[-1]["requested"]
        assert (newest["agent"], newest.get("model")) == (agent, model)


async def test_the_prompt_comes_from_where_it_is(shell: Shell, bridge: Bridge, tmp_path: Path) -> None:
    file = tmp_path / "prompt.md"
    file.write_text("say from a file\n")
    read = await shell("turn", "--session", "s1", "--file", str(file))
    assert "from a file" in read.out.decode()
    for args in (("-",), ()):
        piped = await shell("turn", "--session", "s1", *args, stdin=b"say piped")
        assert "\npiped\n" in piped.out.decode(), piped.err
    verb = await shell("turn", "--session", "s1", "--id", "t9", "--", "list")
    assert (verb.code, "> list\n" in verb.out.decode()) == (0, True)


async def test_it_may_have_credentials_until_it_ends(shell: Shell, bridge: Bridge) -> None:
    done = await shell("turn", "--session", "s1", "--grant", "github", "--grant", "npm-1", "--json", "say hello")
    assert done.objects[0]["data"]["grants"] == ["github", "npm-1"]


MISTAKES = [
    (("turn", ""), "there is nothing in it"),
    (("turn", "two", "words"), "put the prompt in quotes: it came as 2 words, 'two'"),
    (("turn", "x" * (4 * 1024 * 1024 + 1)), "the prompt has 4194305 bytes; the limit is 4194304: use --attach"),
    (("turn", "x", "--file", "y"), "the prompt or --file, not both"),
    (("turn", "--file", "/nowhere"), "--file '/nowhere' cannot be read: No such file"),
    (("turn", "x", "--attach", "/nowhere"), "--attach '/nowhere' is not a file"),
    (("turn", "x", "--attach", "/"), "--attach '/' is not a file"),
    (("turn", "x", "--attach", "/etc/hostname", "--attach", "/../etc/hostname"), "two files are called 'hostname'"),
    (("turn", "x", "--budget", "much"), "'much' is no amount of US dollars like 5 or 0.25"),
    (("turn", "x", "--budget", "-1"), "--budget"),
    (("turn", "x", "--grant", "GitHub"), "'GitHub' is no name of a credential: 1 to 64 characters"),
    (("turn", "x", "--owner", "ada"), "--owner 'ada' is not TYPE:ID"),
    (("turn", "x", "--session", "a.b"), "session 'a.b' is not 1 to 64 characters"),
    (("turn", "x", "--max-turns", "0"), "BAD_REQUEST"),
    (("turn", "x", "--conversation", "a b"), "BAD_REQUEST"),
    (("turn", "refuse NO_PROVIDER"), "NO_PROVIDER: as the test asked"),
    (("turn", "show", "t9"), "there is no turn t9 in org default"),
    (("turn", "show", "t9", "--session", "s1"), "session s1 has no turn t9"),
    (("turn", "show", "a b"), "turn 'a b' is not 1 to 64 characters"),
    (("turn", "list", "--limit", "0"), "limit 0 is not 1 to 10000"),
    (("steer", "t9", "x"), "there is no turn t9"),
    (("steer", "t9", "two", "words"), "put the text in quotes"),
    (("interrupt", "t9"), "there is no turn t9"),
    (("queue", "t9"), "there is no turn t9"),
    (("approve", "t9"), "there is no turn t9"),
]


async def test_every_mistake_is_one_line(shell: Shell, bridge: Bridge) -> None:
    for args, says in MISTAKES:
        done = await shell.here(*args)
        assert (done.code, done.out) == (2, b""), args
        assert says in done.err
        assert done.err.count("\n") == 1, done.err


async def test_ctrl_c_once_interrupts_and_twice_leaves(shell: Shell, bridge: Bridge) -> None:
    argv = shell.argv("turn", "--session", "s1", "--id", "t1", "hold")
    async with Terminal(argv, shell.environ, cols=100) as terminal:
        await terminal.shows("working")
        await terminal.press_ctrl_c()
        text = await terminal.shows("■ cancelled")
        assert "press Ctrl-C again to leave it running" in text
        assert await terminal.wait() == 5
    argv = shell.argv("turn", "--session", "s1", "--id", "t2", "stubborn")
    async with Terminal(argv, shell.environ, cols=100) as terminal:
        await terminal.shows("working")
        await terminal.press_ctrl_c()
        await terminal.shows("again to leave")
        await terminal.press_ctrl_c()
        assert await terminal.wait() == 130
        assert "the turn goes on: sandreel turn show t2" in terminal.text
        [back] = re.findall(r"--after (\S+)", terminal.text.replace("\n", ""))
    await shell.here("interrupt", "t2")
    rest = await shell("turn", "show", "t2", "--after", back)
    assert rest.code == 5
    assert rest.out.decode().startswith("· interrupted")


async def test_text_is_shown_on_a_terminal_as_it_is_typed_with_what_goes_on(shell: Shell, bridge: Bridge) -> None:
    bridge.pace_s = 0.05
    argv = shell.argv("turn", "--session", "s1", "--id", "t1", "run claude-code text_partial")
    async with Terminal(argv, shell.environ, cols=100) as terminal:
        assert await terminal.wait() == 0
        plain = await shell("turn", "show", "t1")
        kept = [line for line in without_times("\n".join(terminal.screen)) if line]
        assert kept == [line for line in without_times(plain.out.decode()) if line]
        assert re.search(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] \d", terminal.text), "nothing told what goes on"


async def test_nothing_that_an_agent_says_steers_the_terminal(shell: Shell, bridge: Bridge) -> None:
    done = await shell("turn", "--session", "s1", "--id", "t1", "say \x1b[2J\x9b2J bell\x07")
    listed = await shell.here("turn", "list")
    for text in (done.out.decode(), listed.out.decode()):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


async def test_turns_are_completed(shell: Shell, bridge: Bridge) -> None:
    for name in ("alpha", "beta"):
        await shell.here("turn", "--session", "s1", "--id", name, "-d", "say x")
    data = f"--data {shell.data}"
    for command in ("turn show", "steer"):
        assert await answered(shell, f"{command} {data} ") == ["alpha", "beta"]
    assert await answered(shell, f"queue {data} --session s1 b") == ["beta"]
    assert await offered(shell, "turn ") == ["start", "show", "list", "ls"]
    assert "claude-code" in await offered(shell, "turn --agent ")
