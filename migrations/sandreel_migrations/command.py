"""`sandreel projections`: what operators do with the views."""

# What is heavy is imported when the command runs; printing is what it is for.
# ruff: noqa: PLC0415, T201

from __future__ import annotations

import argparse
import json
from typing import Any

from sandreel_core.cli.connection import options
from sandreel_migrations import rebuild_command


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("projections", help="rebuild the views, see how they are", allow_abbrev=False)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    rebuild_command.add(verbs)
    dropped = verbs.add_parser(
        "drop-old",
        parents=[options(org=False)],
        help="drop the views that rebuilds have replaced",
        allow_abbrev=False,
    )
    dropped.add_argument("--unfinished", action="store_true", help="a rebuild that was not finished as well")
    dropped.set_defaults(run=drop_old)


async def drop_old(args: argparse.Namespace) -> int:
    """Raises Misconfigured, Unavailable."""
    from sandreel_projections import schemas
    from sandreel_projections.database import connected
    from sandreel_projections.sql_command import dsn_of

    async with connected(dsn_of(args), "drop-old") as connection:
        found = [(old.schema, old.bytes) for old in await schemas.old_schemas(connection)]
        if args.unfinished and await schemas.exists(connection, schemas.FRESH):
            found.append((schemas.FRESH, 0))
        for schema, size in found:
            await schemas.drop(connection, schema)
            print(
                json.dumps({"schema": schema, "bytes": size}) if args.json else f"{schema}: dropped ({size >> 20} MiB)"
            )
    if not found and not args.json:
        print("nothing to drop")
    return 0
