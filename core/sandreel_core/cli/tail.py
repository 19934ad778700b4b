"""`sandreel tail`: what many sessions print, history first, then live."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
from typing import TYPE_CHECKING, Any

from sandreel_core.cli import scope
from sandreel_core.cli.connection import connect, options, section
from sandreel_core.cli.hangup import ends_with_terminal
from sandreel_core.cli.moment import HELP, METAVAR, moment
from sandreel_core.cli.pipes import STDOUT, write_all

if TYPE_CHECKING:
    from sandreel_core.cli.tail_text import TailText
    from sandreel_core.client import Client
    from sandreel_core.contract.cursors import Cursors

_DESCRIPTION = """\
Show what the named sessions print, or all of an org (--org), or everything (--all): what is stored first, from the
beginning or --since, then what comes, without a seam, in whole lines. Each begins with its session and exec, `!` marks
stderr. A line that has not ended is shown after a second with `…` where its rest is missing, and the rest, when it
comes, with `…` where its beginning was, also after --since a place in its middle.

What one session prints comes in the order of the log. Sessions of different partitions are shown as they come: history
of several partitions is in no order among them.

--grep takes an expression of RE2, which looks at each line once, however the expression is made: no back-references
and no look-around. Ctrl-C ends it and says how to go on from exactly there, in every partition.
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "tail",
        parents=[options()],
        help="what many sessions print, history first, then live",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("session", metavar="SESSION", nargs="*", help="these (all of the org unless given)")
    scope.add_all(parser)
    parser.add_argument("--grep", metavar="REGEX", help="only lines that match somewhere")
    parser.add_argument("-i", "--ignore-case", action="store_true", help="for --grep")
    parser.add_argument("--since", type=moment, metavar=METAVAR, help=f"only what was stored later: {HELP}, or `now`")
    parser.add_argument("--stream", choices=("stdout", "stderr"), help="only this one")
    parser.add_argument("--events", action="store_true", help="also every event that is no output")
    parser.add_argument("--no-follow", action="store_true", help="end with what is stored now")
    parser.set_defaults(run=run)


@ends_with_terminal(STDOUT)
async def run(args: argparse.Namespace) -> int:
    """Raises Malformed, Misconfigured, NotFound, Unavailable; BrokenPipeError when nobody reads any more."""
    from sandreel_core.cli.entry import INTERRUPTED
    from sandreel_core.cli.expression import matcher
    from sandreel_core.cli.interrupts import on_interrupt
    from sandreel_core.cli.tail_text import TailText

    scope.check(args)
    judge = matcher(args.grep, ignore_case=args.ignore_case) if args.grep is not None else None
    async with connect(args) as client:
        await _say_who_is_not_there(client, args)
        begins = await client.places(scope.org_of(args), args.session, args.since)
        shown = TailText(begins, json=args.json, colours=sys.stdout.isatty(), with_org=args.all)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            showing = group.create_task(_show(client, args, judge, begins, shown, stop))

            def pressed(count: int) -> None:
                stop.set()
                if count > 1:
                    showing.cancel()

            with on_interrupt(pressed):
                await asyncio.wait([showing])
        if stop.is_set():
            _say_how_to_go_on(args, shown.cursors)
            return INTERRUPTED
    return 0


async def _say_who_is_not_there(client: Client, args: argparse.Namespace) -> None:
    """It may come yet, and is followed all the same; but most often its name is misspelt."""
    from sandreel_core.errors import NotFound

    for session in args.session:
        try:
            await client.session(args.org, session)
        except NotFound:
            yet = "" if args.no_follow else " yet: it is waited for"
            print(f"sandreel: there is no session {session} in org {args.org}{yet}", file=sys.stderr)


async def _show(
    client: Client, args: argparse.Namespace, judge: Any, begins: Cursors, shown: TailText, stop: asyncio.Event
) -> None:
    from contextlib import aclosing
    from functools import partial

    from sandreel_core.cli.snapshots import snapshot
    from sandreel_core.settings import Postgres

    items = client.tail(
        scope.org_of(args),
        args.session,
        since=begins,
        judge=judge,
        stream=args.stream,
        events=args.events,
        live=not args.no_follow,
        stop=stop,
        snapshots=partial(snapshot, section(args, Postgres).dsn),
    )
    async with aclosing(items):
        async for batch in items:
            await write_all(STDOUT, shown.text(batch))


def _say_how_to_go_on(args: argparse.Namespace, cursors: Cursors) -> None:
    words = [*(["--all"] if args.all else ["--org", args.org]), "--since", str(cursors)]
    words += ["--data", str(args.data)] if args.data is not None else []
    words += ["--grep", args.grep] if args.grep is not None else []
    words += ["-i"] if args.ignore_case else []
    words += ["--stream", args.stream] if args.stream else []
    words += ["--events"] if args.events else []
    print(f"sandreel: to go on from here: sandreel tail {shlex.join([*words, *args.session])}", file=sys.stderr)
