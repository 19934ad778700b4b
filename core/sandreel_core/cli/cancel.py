"""`sandreel cancel`: end an exec."""

from __future__ import annotations

import argparse
from typing import Any

from sandreel_core.cli.connection import connect, options


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "cancel",
        parents=[options()],
        help="end an exec: SIGTERM, then SIGKILL 5 s later",
        description="Send SIGTERM to an exec's process group, and SIGKILL 5 s later; or one signal of your choice.",
        allow_abbrev=False,
    )
    parser.add_argument("session", metavar="SESSION")
    parser.add_argument("exec", metavar="EXEC")
    parser.add_argument("--signal", metavar="NAME", help="only send this signal, for example SIGINT")
    parser.add_argument("--wait", action="store_true", help="return when it has ended")
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Raises Refused (EXEC_NOT_FOUND, …), Unavailable, Misconfigured."""
    from sandreel_core.cli.screen import Screen

    async with connect(args) as client:
        handle = client.handle(args.org, args.session, args.exec)
        outcome = await (handle.signal(args.signal) if args.signal else handle.cancel())
        result = await handle.wait() if args.wait else None
        if args.json:
            fields: dict[str, Any] = {
                "type": outcome.event.type,
                "command": outcome.command_id,
                "cursor": str(outcome.cursor),
            }
            if result is not None:
                fields |= {"exit_code": result.exit_code, "signal": result.signal, "reason": result.reason}
            await Screen(json=True).line(fields)
    return 0
