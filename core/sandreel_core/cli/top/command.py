"""The command: what it takes, and the one snapshot of `--once`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.connection import connect, dsn_of, options
from sandreel_core.cli.duration import seconds
from sandreel_core.cli.hangup import ends_with_terminal
from sandreel_core.cli.pipes import STDERR, STDIN, STDOUT
from sandreel_core.errors import Misconfigured

if TYPE_CHECKING:
    from sandreel_core.cli.top.order import Filter, Order
    from sandreel_core.cli.top.watch import Watch

# Long enough for a rate, and for the heartbeats of most sessions (every 5 s).
_ONCE_S = 2.0

_DESCRIPTION = """\
Every session and exec on one live screen: state, lines a second, last line, age, heartbeats, spool, and how far
the views are behind. Enter opens an exec; its whole history can be scrubbed through. It only reads.

A filter is one or more of: word, /regex/ (RE2), org:…, state:…, name:…
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "top",
        parents=[options(org=False)],
        help="every session and exec on one live screen",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--org", metavar="ORG", help="only this organisation's (all)")
    parser.add_argument(
        "--sort", default="state", metavar="COLUMN", help="name, org, state, rate, lines, execs, … (state)"
    )
    parser.add_argument("--filter", default="", metavar="FILTER", help="only rows that it takes")
    parser.add_argument("--live", action="store_true", help="without what has ended")
    parser.add_argument(
        "--once", action="store_true", help="print one snapshot and leave; --json does the same in JSON"
    )
    parser.add_argument("--wait", type=seconds, default=_ONCE_S, metavar="TIME", help="watch so long before it (2s)")
    parser.set_defaults(run=run)


@ends_with_terminal(STDIN, STDOUT, STDERR)
async def run(args: argparse.Namespace) -> int:
    """Raises Malformed, Misconfigured, NotFound, Unavailable."""
    from sandreel_core.cli.top.board import Board
    from sandreel_core.cli.top.order import Filter, Order
    from sandreel_core.cli.top.watch import Watch
    from sandreel_core.ids import check_org

    org = None if args.org is None else check_org(args.org)
    order, wanted = Order(by=args.sort, live=args.live), Filter.parse(args.filter)
    once = args.once or args.json
    if not once and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Misconfigured("`sandreel top` needs a terminal; --once prints one snapshot without")
    if not once:
        try:
            from sandreel_core.cli.top.screen import show
        except ImportError as error:
            raise Misconfigured(
                "the screen needs Textual: pip install 'sandreel[cli]' (--once works without)"
            ) from error
    async with connect(args) as client:
        watch = Watch(client, Board(), org=org, dsn=dsn_of(args))
        if once:
            return await _once(watch, order, wanted, json=args.json, wait_s=args.wait)
        return await show(client, watch, order, wanted)


async def _once(watch: Watch, order: Order, wanted: Filter, *, json: bool, wait_s: float) -> int:
    import asyncio
    import contextlib
    import shutil
    import time

    import msgspec

    from sandreel_core.cli.cells import fitted
    from sandreel_core.cli.top.columns import cells, layout
    from sandreel_core.cli.top.header import headline, health
    from sandreel_core.cli.top.order import arrange
    from sandreel_core.json_line import json_text

    reading = asyncio.create_task(watch.run())
    try:
        loaded = asyncio.create_task(_after(watch, wait_s))
        await asyncio.wait((reading, loaded), return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            loaded.cancel()
            await reading
        status = watch.status(time.monotonic())
        everything = watch.board.rows(time.time_ns(), time.monotonic())
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
    rows = arrange(everything, order, wanted)
    if json:
        fields = msgspec.to_builtins(status) | {"left_out": watch.board.left_out}
        print(json_text({"type": "status", **fields}))
        for row in rows:
            print(json_text({"type": "session" if row.is_session else "exec", **msgspec.to_builtins(row)}))
        return 0
    width = shutil.get_terminal_size().columns
    rate = watch.board.lines_per_s(time.time_ns())
    for part in (headline(everything, rate, status), health(status, left_out=watch.board.left_out)):
        print("  ".join(piece.text for piece in part))
    columns = layout(rows, width)
    print(" ".join(fitted(column.title, room, right=column.right) for column, room in columns).rstrip())
    for row in rows:
        print(" ".join(cells(row, columns, tree=True)).rstrip())
    return 0


async def _after(watch: Watch, wait_s: float) -> None:
    import asyncio

    await watch.loaded()
    await asyncio.sleep(wait_s)
