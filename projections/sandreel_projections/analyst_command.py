"""`sandreel analyst`: logins that read the views of some organisations."""

# What is heavy is imported when the command runs; printing is what it is for.
# ruff: noqa: PLC0415, T201

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path
from typing import Any

from sandreel_core.cli.connection import options
from sandreel_core.errors import Malformed
from sandreel_core.json_line import json_text
from sandreel_projections.dsn import dsn_of

_DESCRIPTION = """\
Logins to Postgres that read the views, and of them only the rows of the organisations that they are bound to.
"""
_EPILOG = """\
examples:
  sandreel analyst add ann --org acme --org beta          prints the password that was made, once
  sandreel analyst add ann --org acme --password-file -   takes it from standard input
  sandreel sql --role ann "SELECT * FROM reel.sessions"   what ann would see
"""
# Longer than any password that is taken, so that a wrong file is not read whole.
_MAX_FILE_BYTES = 4096
_PASSWORD_BYTES = 24


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "analyst",
        help="logins that read the views of some organisations",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    added = verbs.add_parser(
        "add", parents=[options(org=False)], help="make a login", allow_abbrev=False, description="Make a login."
    )
    added.add_argument("name", metavar="NAME", help="a-z 0-9 _ -, at most 63 characters")
    added.add_argument("--org", action="append", required=True, metavar="ORG", help="whose rows it sees; repeatable")
    added.add_argument(
        "--password-file", metavar="FILE", help="the first line of it is the password; `-` is standard input"
    )
    added.set_defaults(run=add_analyst)
    listed = verbs.add_parser("ls", parents=[options(org=False)], help="every login, and its orgs", allow_abbrev=False)
    listed.set_defaults(run=list_analysts)
    removed = verbs.add_parser("rm", parents=[options(org=False)], help="end a login", allow_abbrev=False)
    removed.add_argument("name", metavar="NAME")
    removed.set_defaults(run=remove_analyst)


async def add_analyst(args: argparse.Namespace) -> int:
    """Raises Malformed, AlreadyExists, Misconfigured, Unavailable."""
    from sandreel_projections import analysts
    from sandreel_projections.database import place

    dsn = dsn_of(args)
    made = args.password_file is None
    password = secrets.token_urlsafe(_PASSWORD_BYTES) if made else _read(args.password_file)
    await analysts.add(dsn, args.name, args.org, password)
    orgs = sorted(set(args.org))
    if args.json:
        said = {"analyst": args.name, "orgs": orgs, "server": place(dsn)}
        print(json_text(said | ({"password": password} if made else {})))
        return 0
    print(f"{args.name} reads the rows of {', '.join(orgs)} at {place(dsn)}")
    if made:
        print(f"password, shown this once: {password}")
    return 0


async def list_analysts(args: argparse.Namespace) -> int:
    """Raises Misconfigured, Unavailable."""
    from sandreel_projections import analysts
    from sandreel_projections.table import lines

    found = await analysts.everyone(dsn_of(args))
    if args.json:
        for each in found:
            said = {"analyst": each.name, "orgs": each.orgs, "added_at": each.added_at.isoformat()}
            print(json_text(said | {"can_log_in": each.can_log_in}))
        return 0
    rows = [(each.name, ", ".join(each.orgs), each.added_at, each.can_log_in) for each in found]
    print("\n".join(lines(("analyst", "orgs", "added_at", "can_log_in"), rows)))
    return 0


async def remove_analyst(args: argparse.Namespace) -> int:
    """Raises NotFound, Misconfigured, Unavailable."""
    from sandreel_projections import analysts

    await analysts.remove(dsn_of(args), args.name)
    print(json_text({"analyst": args.name, "removed": True}) if args.json else f"{args.name} is removed")
    return 0


def _read(file: str) -> str:
    """Raises Malformed."""
    if file == "-":
        text = sys.stdin.readline(_MAX_FILE_BYTES)
    else:
        try:
            with Path(file).open(encoding="utf-8") as opened:
                text = opened.readline(_MAX_FILE_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise Malformed(f"--password-file {file} cannot be read: {why}") from None
    return text.rstrip("\r\n")
