"""`sandreel commands`: what was asked for, and what became of it."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.connection import connect, options
from sandreel_core.cli.moment import HELP, METAVAR, moment

if TYPE_CHECKING:
    from sandreel_core.client.outcomes import CommandInfo

_DESCRIPTION = """\
Print the newest commands to an org's sessions, or to one, each with its one outcome: the first event that names it.
Read from the streams alone. Commands are kept for seven days. One whose exec was archived since is `unknown`: its
outcome is in the archive.
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "commands",
        parents=[options()],
        help="what was asked for, and what became of it",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("session", metavar="SESSION", nargs="?", help="only to this one")
    parser.add_argument("--id", metavar="ID", help="only this one (a UUIDv7)")
    parser.add_argument("--state", choices=("pending", "refused", "done", "unknown"), help="only those")
    parser.add_argument("--since", type=moment, metavar=METAVAR, help=f"only those sent later: {HELP}")
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="look at the newest N (100, up to 10000)")
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Raises Malformed, NotFound, Misconfigured, Unavailable."""
    from sandreel_core.cli.text import plain, table
    from sandreel_core.errors import NotFound
    from sandreel_core.json_line import json_text

    async with connect(args) as client:
        found = await client.commands(args.org, args.session, command_id=args.id, since=args.since, limit=args.limit)
    if args.id is not None and not found:
        raise NotFound(f"there is no command {args.id} (any more: they are kept for seven days)")
    shown = [_fields(info) for info in found if args.state in (None, info.state)]
    if args.json:
        for fields in shown:
            print(json_text(fields))
        return 0
    rows = [("ASKED", "SESSION", "COMMAND", "ACTOR", "STATE", "TOOK", "OUTCOME", "ID")]
    for fields in shown:
        outcome = f"{fields['code']}: {fields['message']}" if "code" in fields else fields.get("outcome", "")
        took = f"{fields['took_ms']:.0f} ms" if "took_ms" in fields else ""
        row = (fields["session"], fields["type"] or "?", fields.get("actor") or "", fields["state"], took, outcome)
        rows.append((fields["asked_at"][:23], *(plain(str(cell).encode()) for cell in row), fields["id"]))
    print("\n".join(table(rows)))
    return 0


def _fields(info: CommandInfo) -> dict[str, Any]:
    where = info.where
    fields: dict[str, Any] = {"id": where.command_id, "type": info.type, "role": where.role, "org": where.org}
    fields |= {"session": where.session, "asked_at": _time(info.asked_ns), "state": info.state}
    if info.actor is not None:
        fields["actor"] = info.actor
    if info.problem:
        fields["problem"] = info.problem
    exec_id = getattr(info.command.data, "exec", None) if info.command is not None else None
    if exec_id is not None:
        fields["exec"] = exec_id
    if info.outcome is not None and info.answered_ns is not None:
        fields["outcome"] = info.outcome.event.type
        fields["cursor"] = str(info.outcome.cursor)
        fields["took_ms"] = (info.answered_ns - info.asked_ns) / 1e6
        if info.state == "refused":
            fields |= {"code": info.outcome.data.code, "message": info.outcome.data.message}
    return fields


def _time(time_ns: int) -> str:
    at = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).replace(microsecond=time_ns % 1_000_000_000 // 1000)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
