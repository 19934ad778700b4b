"""`sandreel events`: the log as it is stored, one JSON object a line."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from sandreel_core.cli import scope
from sandreel_core.cli.connection import connect, options
from sandreel_core.cli.hangup import ends_with_terminal
from sandreel_core.cli.moment import HELP, METAVAR, moment
from sandreel_core.cli.pipes import STDOUT, write_all

if TYPE_CHECKING:
    from sandreel_core.client.log import LogItem

_DESCRIPTION = """\
Print every event that the log holds of an org (or of everything, or of some sessions or execs), as it is stored, with
its cursor and the time at which the stream's server stored it. Repeats of output that a lost connection left in
the log are printed too: whoever reads an exec takes `n = last + 1`.

--raw prints the bodies alone, byte for byte, one a line (JSON; what is none is told on standard error). On a terminal
control characters that JSON leaves as they are, are spelt out.
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "events",
        parents=[options()],
        help="the raw log as JSON lines",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    scope.add_all(parser)
    parser.add_argument(
        "--session", action="append", default=[], metavar="SESSION", help="only of this one; repeatable"
    )
    parser.add_argument("--exec", action="append", default=[], metavar="EXEC", help="only of this one; repeatable")
    parser.add_argument(
        "--type", action="append", default=[], metavar="TYPE", help="like exec.exited or 'session.*'; repeatable"
    )
    parser.add_argument("--since", type=moment, metavar=METAVAR, help=f"only what was stored later: {HELP}")
    parser.add_argument("--until", type=moment, metavar=METAVAR, help="only up to there, inclusive")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument("--raw", action="store_true", help="the stored bodies alone")
    parser.set_defaults(run=run)


@ends_with_terminal(STDOUT)
async def run(args: argparse.Namespace) -> int:
    """Raises Malformed, NotFound, Misconfigured, Unavailable; BrokenPipeError when nobody reads any more."""
    import os
    import sys
    from contextlib import aclosing

    from sandreel_core.json_line import harmless_bytes

    scope.check(args)
    seen = os.isatty(STDOUT)
    async with connect(args) as client:
        items = client.log(
            scope.org_of(args), args.session, execs=args.exec, since=args.since, until=args.until, live=args.follow
        )
        async with aclosing(items):
            async for item in items:
                line = _line(item, args.type, raw=args.raw)
                if line is None:
                    continue
                if args.raw and not line.startswith(b"{"):
                    print(f"sandreel: {line.decode()}", file=sys.stderr)
                else:
                    await write_all(STDOUT, (harmless_bytes(line) if seen else line) + b"\n")
    return 0


def _line(item: LogItem, types: list[str], *, raw: bool) -> bytes | None:
    """One line; None for what was not asked for. With `raw` a sentence, which no JSON object is, for what is no line."""
    import msgspec

    from sandreel_core.client.log import LogGap
    from sandreel_core.contract.subjects import reel
    from sandreel_core.json_line import json_line

    if isinstance(item, LogGap):
        why = f"{reel(item.partition)} does not hold sequences {item.from_sequence} to {item.to_sequence} any more"
        return why.encode() if raw else json_line({"missing": why})
    stored = item.stored
    try:
        body = msgspec.json.decode(stored.body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = None
    if types and not any(fnmatchcase(str((body or {}).get("type", "")), each) for each in types):
        return None
    if raw:
        is_line = body is not None and b"\n" not in stored.body and b"\r" not in stored.body
        return stored.body if is_line else f"the body at {item.cursor} is no line of JSON".encode()
    at = datetime.fromtimestamp(stored.time_ns // 1_000_000_000, UTC).replace(
        microsecond=stored.time_ns % 1_000_000_000 // 1000
    )
    head = {"cursor": str(item.cursor), "stored_at": at, "subject": stored.subject}
    return json_line(head | ({"event": body} if body is not None else {"body_base64": stored.body}))
