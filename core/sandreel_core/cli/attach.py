"""`sandreel attach`: see an exec from where you left, without a seam."""

from __future__ import annotations

import argparse
from typing import Any

from sandreel_core.cli.connection import connect, options

_DESCRIPTION = """\
Show an exec from its beginning, or behind a cursor, until it ends; ends with its exit code.

Ctrl-C leaves, prints the cursor to come back to, and does nothing to the job (`sandreel cancel` does).
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
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Raises NotFound, Malformed, Unavailable, Misconfigured."""
    from sandreel_core.cli.job import Job
    from sandreel_core.contract.cursor import Cursor

    after = Cursor.parse(args.after) if args.after else None
    async with connect(args) as client:
        await client.require_exec(args.org, args.session, args.exec)
        handle = client.handle(args.org, args.session, args.exec)
        return await Job(handle, args.session, json=args.json, after=after).watch(interruptible=False)
