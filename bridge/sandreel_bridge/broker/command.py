"""`sandreel credential`: values in the vault, grants to sessions."""

# What is heavy is imported when the command runs.
# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandreel_core.cli.connection import options
from sandreel_core.cli.duration import seconds, variable

_DESCRIPTION = """\
A value is stored once, in the vault; a session may have it by a grant, and then one lease at a time.

  sandreel credential put github --org acme < token     the value comes from standard input or --file, never as a word
  sandreel credential grant s1 github --for 8h           git, gh and sandreel-credential in s1 get leases from now on
  sandreel credential revoke s1 github                   and from now on none
  sandreel credential audit --org acme                   who read what from the vault, and for which lease

Inside the session git asks by itself, `gh` too; anything else runs as `sandreel-credential run SLUG -- COMMAND`, or asks with
`sandreel-credential get SLUG`. What a program has had it can keep: recipe github-app hands out tokens that end instead.
"""
_PUT = """\
Store a value; it counts from now on, and a lease that is out keeps the one that it has.

recipes (--recipe; the credential's name, where there is one of that name, else generic):
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "credential",
        help="values in the vault, and which sessions may have them",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_vault(verbs)
    _add_grants(verbs)


def _add_vault(verbs: Any) -> None:
    from sandreel_bridge.broker.recipe import RECIPES

    recipes = "".join(
        f"  {name:<12} {each.what}{f' (--set {chr(44).join(each.required)}=…)' if each.required else ''}\n"
        for name, each in RECIPES.items()
    )
    put = _verb(verbs, "put", "store a value, from standard input or a file", "put", epilog=_PUT + recipes)
    put.add_argument("slug", metavar="SLUG", help="its name: a-z 0-9 _ -, at most 64 characters")
    put.add_argument("--recipe", choices=tuple(RECIPES), metavar="RECIPE", help="what it is for")
    put.add_argument(
        "--set",
        action="append",
        default=[],
        type=variable,
        metavar="NAME=VALUE",
        help="an option of the recipe; public",
    )
    put.add_argument("--file", type=Path, metavar="FILE", help="the value; else it is read from standard input")
    listed = _verb(verbs, "list", "names, fingerprints and recipes; no values", "show", aliases=["ls"])
    listed.add_argument("--all", action="store_true", help="all orgs")
    deleted = _verb(verbs, "delete", "take the value out of the vault", "delete", aliases=["rm"])
    deleted.add_argument("slug", metavar="SLUG")
    rewrapped = _verb(verbs, "rewrap", "seal everything with the first key of [broker] key_file", "rewrap")
    rewrapped.add_argument("--new-key", action="store_true", help="make that key first")
    audit = _verb(verbs, "audit", "who read what from the vault", "audit")
    audit.add_argument("slug", metavar="SLUG", nargs="?")
    audit.add_argument("--all", action="store_true", help="all orgs")
    audit.add_argument("--last", type=int, default=100, metavar="N", help="how many lines, the newest (100)")


def _add_grants(verbs: Any) -> None:
    grant = _verb(verbs, "grant", "let a session, or one turn of it, have leases", "grant", of_grants=True)
    grant.add_argument("--for", dest="lasts_s", type=seconds, metavar="TIME", help="ends by itself after this")
    grant.add_argument("--purpose", metavar="TEXT", help="for the record, which is public; at most 256 characters")
    ungrant = _verb(
        verbs, "ungrant", "no new leases by this one grant; those that are out last", "ungrant", of_grants=True
    )
    revoke = _verb(
        verbs, "revoke", "no leases any more by any grant, and those that are out end", "revoke", of_grants=True
    )
    for each in (grant, ungrant, revoke):
        each.add_argument("session", metavar="SESSION")
        each.add_argument("slug", metavar="SLUG")
    for each in (grant, ungrant):
        each.add_argument("--turn", metavar="TURN", help="of this turn alone, with which it ends")


def _verb(
    verbs: Any, name: str, help: str, work: str, *, of_grants: bool = False, epilog: str | None = None, **more: Any
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(
        name,
        parents=[options()],
        help=help,
        description=f"{help[:1].upper()}{help[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **more,
    )
    made.set_defaults(run=_run(work, of_grants=of_grants))
    return made


def _run(work: str, *, of_grants: bool) -> Callable[[argparse.Namespace], Any]:
    def run(args: argparse.Namespace) -> Any:
        from sandreel_bridge.broker import grant_verbs, vault_verbs

        return getattr(grant_verbs if of_grants else vault_verbs, work)(args)

    return run
