"""`sandreel env`: the variables that a session's execs get."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from sandreel_core.cli.connection import connect, options
from sandreel_core.cli.duration import variable, variable_name
from sandreel_core.errors import Malformed

_DESCRIPTION = """\
The variables of every exec that starts later in a session; what runs keeps what it has.

  sandreel env s1                      what is set, and which names were denied
  sandreel env s1 set LANG=C CI=1
  sandreel env s1 unset CI

They are public: they stand in the log, and everybody who may read it sees them. Secrets go by reference, and have no
value here. Names that sandreel keeps (HOME, PATH, TMPDIR, SANDREEL_*, proxies) are denied, which is said, and ends
with exit code 2.
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "env",
        parents=[options()],
        help="see, set and unset a session's variables",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="sandreel env [options] SESSION [ls | set NAME=VALUE ... | unset NAME ...]",
        allow_abbrev=False,
    )
    parser.add_argument("session", metavar="SESSION")
    parser.add_argument("verb", nargs="?", choices=("ls", "set", "unset"), default="ls", metavar="VERB")
    parser.add_argument("names", nargs="*", metavar="NAME[=VALUE]")
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Raises Malformed, NotFound, Refused, Unavailable, Misconfigured."""
    if args.verb == "ls":
        if args.names:
            raise Malformed("`env SESSION ls` takes no names")
        return await _ls(args)
    if not args.names:
        raise Malformed(
            f"say what to {args.verb}: sandreel env SESSION {args.verb} NAME{'=VALUE' * (args.verb == 'set')}"
        )
    return await _patch(args)


async def _ls(args: argparse.Namespace) -> int:
    from sandreel_core.cli.text import clean

    async with connect(args) as client:
        found = await client.env(args.org, args.session).read()
    for name, value in sorted(found.values.items()):
        if args.json:
            _object({"name": name, "value": value})
        else:
            print(f"{name}={clean(value)}")
    for name in found.denied:
        if args.json:
            _object({"name": name, "denied": True})
        else:
            print(f"sandreel: {clean(name)} was asked for and denied", file=sys.stderr)
    return 0


async def _patch(args: argparse.Namespace) -> int:
    from sandreel_core.contract.workspace import EnvPatched

    try:
        pairs = dict(variable(text) for text in args.names) if args.verb == "set" else {}
        unset = [variable_name(text) for text in args.names] if args.verb == "unset" else []
    except argparse.ArgumentTypeError as error:
        raise Malformed(str(error)) from error
    async with connect(args) as client:
        outcome = await client.env(args.org, args.session).patch(pairs, unset)
    patched = outcome.data if isinstance(outcome.data, EnvPatched) else EnvPatched()
    if args.json:
        fields = {"set": patched.set, "unset": patched.unset, "denied": patched.denied, "cursor": str(outcome.cursor)}
        _object(fields)
    for name in patched.denied:
        print(
            f"sandreel: {name} is denied: a name that sandreel keeps, too long a value, or one too many",
            file=sys.stderr,
        )
    return 2 if patched.denied else 0


def _object(fields: dict[str, Any]) -> None:
    from sandreel_core.json_line import json_text

    print(json_text(fields))
