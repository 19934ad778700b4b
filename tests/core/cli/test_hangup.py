"""Commands of a few lines, on real terminals that vanish."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from sandreel_core.cli.hangup import GRACE_S, Hangup
from tests.support.terminal import Terminal

# Prints "ready", then does what BODY says for far longer than the test.
COMMAND = """
import argparse, asyncio, signal, sys, time
from sandreel_core.cli.hangup import ends_with_terminal

@ends_with_terminal(1)
async def run(args):
    print("ready", flush=True)
    BODY

signal.signal(signal.SIGHUP, signal.SIG_IGN)
sys.exit(asyncio.run(run(argparse.Namespace())))
"""
BODIES = {
    "that waits": "await asyncio.sleep(1000)",
    "that stalls": "time.sleep(1000)",
    "that will not be cancelled": """
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            continue""",
    "that makes an error of it": """
    try:
        await asyncio.sleep(1000)
    finally:
        print("a farewell that nobody reads", flush=True)""",
}


def command(body: str) -> list[str]:
    return [sys.executable, "-c", COMMAND.replace("BODY", body)]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_command_ends_whatever_it_does(body: str) -> None:
    async with Terminal(command(body), os.environ) as terminal:
        await terminal.until("ready")
        terminal.hang_up()
        assert await terminal.wait(timeout_s=GRACE_S + 20) == 129


async def test_its_exit_code_is_its_own_while_the_terminal_is_there() -> None:
    async with Terminal(command("return 7"), os.environ) as terminal:
        assert await terminal.wait() == 7
        assert terminal.text == "ready\n"


async def test_an_error_is_its_own_while_the_terminal_is_there() -> None:
    async with Terminal(command("raise OSError('the disk')"), os.environ) as terminal:
        assert await terminal.wait() == 1
        assert "the disk" in terminal.text


async def test_what_is_no_terminal_does_not_end_it() -> None:
    reader, writer = os.pipe()
    hangup = Hangup([writer])
    os.close(reader)
    with hangup.watched(lambda: pytest.fail("it was told to leave")):
        assert hangup.terminals == []
        assert not hangup.came()
        await asyncio.sleep(0)
    os.close(writer)
