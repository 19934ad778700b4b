"""`sandreel attach`: see an exec from where you left, without a seam."""

from __future__ import annotations

import argparse
from typing import Any

from sandreel_core.cli.agents import agent_option, reader_of
from sandreel_core.cli.connection import connect, options, options_of
from sandreel_core.cli.hangup import ends_with_terminal
from sandreel_core.cli.interactive import opened, terminal_options
from sandreel_core.cli.pipes import STDOUT
from sandreel_core.errors import Malformed

_DESCRIPTION = """\
Show an exec from its beginning, or behind a cursor, until it ends; ends with its exit code.

Ctrl-C leaves, prints the cursor to come back to, and does nothing to the job (`sandreel cancel` does).

With --agent, for a job that is a coding agent which prints JSON lines: what it says, its tools as they begin and end, and
what it used; with --json its events, one a line, in the place of its stdout.

With -it, for a job that has a terminal: its screen is drawn as it is now, and then this terminal is the job's, with keys
and size. Ctrl-P Ctrl-Q leaves. Several may be attached: all see the same, keys go in as they come, and the job's
terminal has the size of the one that came, or changed its size, last.
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "attach",
        parents=[options()],
        help="see an exec from its beginning or from a cursor, live",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("session", metavar="SESSION")
    parser.add_argument("exec", metavar="EXEC")
    parser.add_argument("--after", metavar="CURSOR", help="only what follows; printed when you detach, and by --json")
    agent_option(parser)
    terminal_options(parser)
    parser.set_defaults(run=run)


@ends_with_terminal(STDOUT)
async def run(args: argparse.Namespace) -> int:
    """Raises NotFound, Malformed, Unavailable, Misconfigured."""
    from sandreel_core.cli.job import Job
    from sandreel_core.contract.cursor import Cursor

    if args.tty or args.interactive:
        return await _in_terminal(args)
    after = Cursor.parse(args.after) if args.after else None
    agent = reader_of(args)
    async with connect(args) as client:
        await client.require_exec(args.org, args.session, args.exec)
        handle = client.handle(args.org, args.session, args.exec)
        return await Job(
            handle, args.session, json=args.json, after=after, agent=agent, options=options_of(args)
        ).watch(interruptible=False)


async def _in_terminal(args: argparse.Namespace) -> int:
    if args.agent:
        raise Malformed("--agent is for a reader: -it draws the job's own screen")
    if args.after:
        raise Malformed("--after is for a reader: -it draws the screen as it is now")
    if not (args.tty and args.interactive):
        raise Malformed("give -i and -t together: a terminal that is attached to is seen and typed at")
    async with opened(args) as (tty, detach), connect(args) as client:
        from sandreel_core.cli.console import Console

        await client.exec_info(args.org, args.session, args.exec)
        handle = client.handle(args.org, args.session, args.exec)
        return await Console(handle, tty, args.session, detach=detach, options=options_of(args)).run()
