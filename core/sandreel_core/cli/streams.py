"""`sandreel streams`: how full the log is, and what to do after one was brought back from a copy."""

from __future__ import annotations

import argparse
from typing import Any

from sandreel_core.cli.connection import connect, options


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("streams", help="how full the log is; after a restore", allow_abbrev=False)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    shown = verbs.add_parser(
        "ls",
        parents=[options(org=False)],
        help="every stream, with its epoch and how full it is",
        allow_abbrev=False,
    )
    shown.set_defaults(run=list_streams)
    restored = verbs.add_parser(
        "restore",
        parents=[options(org=False)],
        help="write a new epoch into a stream that was brought back from a copy",
        description="A copy of a stream brings back its old epoch, and with it cursors that now point to other events."
        " Run this after the copy is in place and before any role connects: every cursor of before is refused from then"
        " on instead of being silently wrong, runnerds explain the hole in their execs, and views must be read anew.",
        allow_abbrev=False,
    )
    restored.add_argument("stream", metavar="STREAM", nargs="+", help="REEL-0, …")
    restored.set_defaults(run=restore)


async def list_streams(args: argparse.Namespace) -> int:
    """Raises Unavailable, Misconfigured."""
    from sandreel_core.contract.subjects import CMD, DEAD, reel
    from sandreel_core.json_line import json_text

    async with connect(args) as client:
        names = [*(reel(partition) for partition in range(client.partitions)), CMD, DEAD]
        states = [await client.bus.state(name) for name in names]
    for state in states:
        if args.json:
            print(json_text(state))
        else:
            share = f"{100 * state.bytes / state.max_bytes:.1f} %" if state.max_bytes > 0 else "-"
            held = f"{state.messages:,} messages, {state.bytes / 2**20:,.1f} MiB"
            print(f"{state.name:8} {held:40} {share:>7} full  epoch {state.epoch or '-'}  last {state.last_sequence:,}")
    return 0


async def restore(args: argparse.Namespace) -> int:
    """Raises Malformed for a stream that has no cursors, NotFound, Unavailable, Misconfigured."""
    from sandreel_core import clock
    from sandreel_core.contract.subjects import reel
    from sandreel_core.errors import Malformed
    from sandreel_core.json_line import json_text

    async with connect(args, operator=True) as client:
        known = [reel(partition) for partition in range(client.partitions)]
        for name in args.stream:
            if name not in known:
                raise Malformed(f"{name} is no stream with cursors; those are {', '.join(known)}")
        for name in args.stream:
            before = (await client.bus.state(name)).epoch
            epoch = clock.new_token()
            await client.bus.renew_epoch(name, epoch)
            if args.json:
                print(json_text({"stream": name, "epoch_before": before, "epoch": epoch}))
            else:
                print(f"{name}: epoch {before or '-'} → {epoch}; start the roles again, and have the views read anew")
    return 0
