"""The verbs of `sandreel credential` that ask the broker, as any client with the right may."""

# ruff: noqa: T201 - printing is what it is for

from __future__ import annotations

import argparse
from datetime import timedelta

from sandreel_bridge.broker.vault_verbs import check_slug
from sandreel_core.cli.connection import connect
from sandreel_core.clock import now
from sandreel_core.contract import credential as c
from sandreel_core.errors import TooLarge
from sandreel_core.ids import check_id
from sandreel_core.json_line import json_text

_MAX_PURPOSE = 256


async def grant(args: argparse.Namespace) -> int:
    """Raises Refused, Malformed, TooLarge, Misconfigured, Unavailable."""
    if args.purpose is not None and len(args.purpose) > _MAX_PURPOSE:
        raise TooLarge(f"--purpose has {len(args.purpose)} characters; the limit is {_MAX_PURPOSE}")
    expires_at = None if args.lasts_s is None else now() + timedelta(seconds=args.lasts_s)
    command = c.Grant(slug=check_slug(args.slug), turn=_turn(args), purpose=args.purpose, expires_at=expires_at)
    until = "" if expires_at is None else f" until {expires_at.isoformat(sep=' ', timespec='seconds')}"
    return await _send(args, command, f"may lease {args.slug}{until}", "may already")


async def ungrant(args: argparse.Namespace) -> int:
    """Raises as `grant`."""
    command = c.Ungrant(slug=check_slug(args.slug), turn=_turn(args))
    return await _send(args, command, f"gets no new lease of {args.slug} by this grant", "has no such grant")


async def revoke(args: argparse.Namespace) -> int:
    """Raises as `grant`."""
    command = c.Revoke(slug=check_slug(args.slug))
    return await _send(args, command, f"has {args.slug} no more", "has neither a grant nor a lease")


def _turn(args: argparse.Namespace) -> str | None:
    return None if args.turn is None else check_id("turn", args.turn)


async def _send(args: argparse.Namespace, command: c.CredentialCommand, done: str, settled: str) -> int:
    async with connect(args) as client:
        outcome = await client.send(args.org, args.session, command)
    if args.json:
        said = {"session": args.session, "slug": command.slug, "outcome": outcome.event.type}
        print(json_text(said | {"cursor": str(outcome.cursor)}))
    else:
        print(f"{args.session} {settled if outcome.settled else done}")
    return 0
