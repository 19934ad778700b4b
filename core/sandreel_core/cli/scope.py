"""Whose log: `--org ORG` or `--all`, and what they mean to a client."""

from __future__ import annotations

import argparse

from sandreel_core.errors import Malformed


def add_all(parser: argparse.ArgumentParser) -> None:
    """`--all`, beside the `--org` of the common options."""
    parser.add_argument("--all", action="store_true", help="all orgs")


def check(args: argparse.Namespace) -> None:
    """Raises Malformed when the options contradict each other. Before `connect`, which fills in the org."""
    if args.all and args.org is not None:
        raise Malformed("give --org or --all, not both")
    if args.all and args.session:
        raise Malformed("sessions belong to an org: name it with --org instead of --all")


def org_of(args: argparse.Namespace) -> str | None:
    """None for all of them."""
    return None if args.all else args.org
