"""`sandreel egress`: which hosts sessions may reach through the egress proxy."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.connection import connect, options

if TYPE_CHECKING:
    from sandreel_core.egress.register import Register
    from sandreel_core.egress.rules import Scope

_ABOUT = """\
Without a list every host may be reached whose address is global. A list is of everybody, of an org (--org, else the
default one) or of a session; where there are several, a host has to be on each. A pattern is a host's name, *.NAME for
all that is below it, an address, or * for everything. Every proxy follows a change at once and cuts connections that it
refuses. A list outlives its session.
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("egress", help="which hosts sessions may reach", allow_abbrev=False)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = verbs.add_parser("ls", parents=[options(org=False)], help="every list", allow_abbrev=False)
    listing.set_defaults(run=_ls)
    allowing = _scoped(verbs, "allow", "set a list: these hosts and no others", _allow)
    allowing.add_argument("pattern", metavar="PATTERN", nargs="*", help="example.com, *.example.com, 1.1.1.1, *")
    allowing.add_argument("--nothing", action="store_true", help="an empty list: no host at all")
    _scoped(verbs, "open", "take a list away", _open)


def _scoped(verbs: Any, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        parents=[options()],
        help=text,
        description=f"{text[0].upper()}{text[1:]}.\n\n{_ABOUT}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--session", metavar="SESSION", help="of this session of the org")
    whose.add_argument("--everybody", action="store_true", help="of all orgs")
    parser.set_defaults(run=run)
    return parser


async def _ls(args: argparse.Namespace) -> int:
    """Raises Unavailable, Misconfigured."""
    import msgspec

    from sandreel_core.cli.text import plain, table
    from sandreel_core.json_line import json_text

    async with _register(args) as (register, _):
        found = await register.rules()
    rows = [("WHOSE", "ALLOWED", "SET BY")]
    for scope, document in sorted(found.items(), key=lambda item: str(item[0]) if item[0].org else ""):
        broken = isinstance(document, str)
        if args.json:
            fields: dict[str, Any] = {"org": scope.org, "session": scope.session}
            fields |= {"problem": document} if isinstance(document, str) else msgspec.to_builtins(document)
            print(json_text(fields))
            continue
        shown = f"cannot be read: {document}" if broken else ", ".join(document.allow or ()) or "nothing"  # type: ignore[union-attr]
        actor = "" if isinstance(document, str) else document.actor
        rows.append((str(scope), plain(shown.encode()), plain(actor.encode())))
    if not args.json:
        print("\n".join(table(rows)) if len(rows) > 1 else "no list: every host with a global address may be reached")
    return 0


async def _allow(args: argparse.Namespace) -> int:
    """Raises Malformed for a pattern that is none, Unavailable, Misconfigured."""
    from sandreel_core.errors import Malformed

    if bool(args.pattern) is args.nothing:
        raise Malformed("name the hosts, or say --nothing")
    return await _set(args, list(args.pattern))


async def _open(args: argparse.Namespace) -> int:
    """Raises Unavailable, Misconfigured."""
    return await _set(args, None)


async def _set(args: argparse.Namespace, patterns: list[str] | None) -> int:
    from sandreel_core.json_line import json_text

    async with _register(args) as (register, actor):
        scope = _scope(args)
        await register.allow(scope, patterns, actor=actor)
    if args.json:
        print(json_text({"org": scope.org, "session": scope.session, "allow": patterns}))
    elif patterns is None:
        print(f"{scope}: no list")
    else:
        print(f"{scope}: {len(patterns)} pattern{'' if len(patterns) == 1 else 's'}")
    return 0


def _scope(args: argparse.Namespace) -> Scope:
    from sandreel_core.egress.rules import Scope

    return Scope() if args.everybody else Scope(args.org, args.session or "")


@asynccontextmanager
async def _register(args: argparse.Namespace) -> AsyncIterator[tuple[Register, str]]:
    """The documents of the installation, and who changes them."""
    from sandreel_core.egress.register import Register, documents

    async with connect(args, operator=True) as client:
        # The proxy makes it as well; a list may be set before one has ever run.
        await client.bus.ensure([documents()])
        yield Register(client.bus), client.actor or ""
