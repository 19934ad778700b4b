"""`sandreel replay`: see again what an exec did, at any pace."""

from __future__ import annotations

import argparse
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.agents import agent_option, reader_of
from sandreel_core.cli.connection import connect, options
from sandreel_core.cli.duration import instant, seconds
from sandreel_core.cli.hangup import ends_with_terminal
from sandreel_core.cli.pipes import STDOUT
from sandreel_core.errors import Malformed

if TYPE_CHECKING:
    from sandreel_core.client.replay import Point

_DESCRIPTION = """\
Show what the stream holds of an exec at the pace at which it was stored, faster, or as fast as it can be read.

--from and --to take
  120            a line of stdout (stderr:120 for one of stderr)
  a1b2:0:4711    a cursor: from what follows it, to it
  +90s           a time since the exec's first event
  2026-01-31T12:00:00Z   an instant
With --agent the job's stdout is read as that coding agent's; what stands before --from is not.
Ends with the exec's exit code if its end is shown, else with 0.
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "replay",
        parents=[options()],
        help="see an exec again, faster or slower",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("session", metavar="SESSION")
    parser.add_argument("exec", metavar="EXEC")
    parser.add_argument("--speed", type=_speed, default=1.0, metavar="N", help="N times as fast (1), or `max`")
    parser.add_argument("--from", dest="start", metavar="WHERE", help="begin there")
    parser.add_argument("--to", dest="end", metavar="WHERE", help="end there, inclusive")
    agent_option(parser)
    parser.set_defaults(run=run)


@ends_with_terminal(STDOUT)
async def run(args: argparse.Namespace) -> int:
    """Raises NotFound, Malformed, Unavailable, Misconfigured."""
    from sandreel_core.cli.agent_screen import AgentScreen
    from sandreel_core.cli.ending import exit_code
    from sandreel_core.cli.screen import Screen

    agent = reader_of(args)
    start, end = _point(args.start), _point(args.end)
    async with connect(args) as client:
        await client.require_exec(args.org, args.session, args.exec)
        shown = Screen if agent is None else partial(AgentScreen, agent)
        screen = shown(json=args.json, exec_id=args.exec)
        await screen.show(
            client.replay(args.org, args.session, args.exec, speed=args.speed or None, start=start, end=end)
        )
        return exit_code(screen.end) if screen.end is not None else 0


def _speed(text: str) -> float:
    if text == "max":
        return 0
    try:
        speed = float(text)
    except ValueError:
        speed = 0
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no speed like 10, 0.5 or max")
    return speed


def _point(text: str | None) -> Point | None:
    """Raises Malformed when the text is no place in an exec."""
    from sandreel_core.client.replay import Line
    from sandreel_core.contract.cursor import Cursor

    if text is None:
        return None
    stream, colon, number = text.rpartition(":")
    if number.isdecimal() and int(number) > 0 and (not colon or stream in ("stdout", "stderr")):
        return Line(int(number), "stderr" if stream == "stderr" else "stdout")
    if text.startswith("+"):
        try:
            return timedelta(seconds=seconds(text[1:]))
        except argparse.ArgumentTypeError as error:
            raise Malformed(str(error)) from error
    if (at := instant(text)) is not None:
        return at
    try:
        return Cursor.parse(text)
    except Malformed as error:
        raise Malformed(f"{text!r} is no line, cursor, +time or instant: see `sandreel replay --help`") from error
