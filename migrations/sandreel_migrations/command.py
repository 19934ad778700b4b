"""`sandreel projections`: what operators do with the views."""

# What is heavy is imported when the command runs; printing is what it is for.
# ruff: noqa: PLC0415, T201

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.connection import connect, options
from sandreel_core.errors import Malformed
from sandreel_core.json_line import json_text
from sandreel_migrations import rebuild_command

if TYPE_CHECKING:
    from sandreel_projections.quarantine import Entry, Retried
    from sandreel_projections.status import Process, Status, StreamStatus

STAYS = 1
_MAX_LIMIT = 100_000


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("projections", help="how the views are; rebuild them", allow_abbrev=False)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    shown = verbs.add_parser(
        "status",
        parents=[options(org=False)],
        help="how far the views are behind, who writes them, what is in quarantine, what rebuilds have left",
        allow_abbrev=False,
    )
    shown.set_defaults(run=show_status)
    rebuild_command.add(verbs)
    dropped = verbs.add_parser(
        "drop-old",
        parents=[options(org=False)],
        help="drop the views that rebuilds have replaced",
        allow_abbrev=False,
    )
    dropped.add_argument("--unfinished", action="store_true", help="a rebuild that was not finished as well")
    dropped.set_defaults(run=drop_old)
    _add_quarantine(verbs)


def _add_quarantine(verbs: Any) -> None:
    parser = verbs.add_parser("quarantine", help="events that no view could digest", allow_abbrev=False)
    what = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listed = what.add_parser(
        "ls", parents=[options(org=False)], help="what they are and why, the newest first", allow_abbrev=False
    )
    listed.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many (100)")
    listed.set_defaults(run=list_quarantine)
    retried = what.add_parser(
        "retry",
        parents=[options(org=False)],
        help="fold their sessions anew, now that the folds may know more",
        description="Fold every session that has events in quarantine anew from the log, and replace its rows where more"
        " events are digested than before. The projector waits while one session is read. Exit code 1: some stay.",
        allow_abbrev=False,
    )
    rebuild_command.add_archive(retried)
    retried.set_defaults(run=retry_quarantine)


async def show_status(args: argparse.Namespace) -> int:
    """Raises Misconfigured, Unavailable."""
    import msgspec

    from sandreel_projections.dsn import dsn_of
    from sandreel_projections.registry import sources
    from sandreel_projections.status import status

    dsn = dsn_of(args)
    async with connect(args) as client:
        found = await status(client.bus, dsn, sources(client.partitions))
    if args.json:
        items: list[tuple[str, msgspec.Struct]] = [("stream", each) for each in found.streams]
        items += [("rebuild", found.rebuild)] if found.rebuild else []
        items += [("old", each) for each in found.old]
        for kind, item in items:
            print(json_text({"kind": kind} | msgspec.to_builtins(item)))
    else:
        print("\n".join(_sentences(found)))
    return 0


def _sentences(found: Status) -> list[str]:
    from sandreel_projections.table import cell

    lines: list[str] = []
    for stream in found.streams:
        lines += _stream(stream)
    if (rebuild := found.rebuild) is not None:
        what = ", ".join(rebuild.tables) or "all views"
        how = f"running, {_who(rebuild.running)}" if rebuild.running else "interrupted: the same command goes on"
        reached = ", ".join(f"{stream} {sequence:,}" for stream, sequence in sorted(rebuild.reached.items()))
        lines.append(f"{rebuild.schema}: a rebuild of {what}, {how}; it has read {reached or 'nothing yet'}")
    lines += [f"{old.schema}: replaced views, {_size(old.bytes)}; `drop-old` drops them" for old in found.old]
    return [cell(line) for line in lines]


def _stream(stream: StreamStatus) -> list[str]:
    lag = "up to date"
    if stream.lag_events:
        size = _size(stream.lag_bytes_estimate)
        lag = f"{stream.lag_events:,} events, about {size}, {stream.lag_s:,.1f} s behind"
    lines = [f"{stream.stream}: {lag}; at {stream.sequence or 0:,} of {stream.stream_sequence:,}"]
    if stream.problem:
        lines.append(f"  {stream.problem}")
    if stream.leader:
        lines.append(f"  led by {_who(stream.leader)}")
    lines += [f"  stands by: {_who(each)}" for each in stream.standbys]
    if stream.quarantined:
        lines.append(f"  {stream.quarantined:,} events in quarantine (`sandreel projections quarantine ls`):")
        lines += [
            f"    {each.events:,} × {each.reason[:200]}, the newest {each.newest_cursor}" for each in stream.reasons
        ]
    return lines


def _who(process: Process) -> str:
    address = f" from {process.address}" if process.address else ""
    return f"{process.process}{address}, connected since {process.connected_since:%Y-%m-%d %H:%M:%S} UTC"


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 1 << 20 else f"{size / 2**10:,.1f} KiB"


async def drop_old(args: argparse.Namespace) -> int:
    """Raises Misconfigured, Unavailable; Conflict while a rebuild runs that it would drop."""
    from sandreel_projections import schemas
    from sandreel_projections.database import connected
    from sandreel_projections.dsn import dsn_of
    from sandreel_projections.unfinished import alone

    async with connected(dsn_of(args), "drop-old") as connection:
        found = [(old.schema, old.bytes) for old in await schemas.old_schemas(connection)]
        if args.unfinished and await schemas.exists(connection, schemas.FRESH):
            await alone(connection)
            found.append((schemas.FRESH, await schemas.size_of(connection, schemas.FRESH)))
        for schema, size in found:
            await schemas.drop(connection, schema)
            print(json_text({"schema": schema, "bytes": size}) if args.json else f"{schema}: dropped, {_size(size)}")
    if not found and not args.json:
        print("nothing to drop")
    return 0


async def list_quarantine(args: argparse.Namespace) -> int:
    """Raises Malformed, Misconfigured, Unavailable."""
    from sandreel_projections.dsn import dsn_of
    from sandreel_projections.quarantine import entries

    if not 1 <= args.limit <= _MAX_LIMIT:
        raise Malformed(f"--limit {args.limit} is not between 1 and {_MAX_LIMIT:,}")
    found = await entries(dsn_of(args), limit=args.limit)
    for entry in found:
        print(_entry(entry, json_lines=args.json))
    if not found and not args.json:
        print("nothing is in quarantine")
    return 0


def _entry(entry: Entry, *, json_lines: bool, indent: str = "") -> str:
    from sandreel_projections.table import cell

    if json_lines:
        return json_text(_fields(entry))
    return f"{indent}{cell(entry.cursor)}  {cell(entry.subject)}  {cell(entry.reason)}"


def _fields(entry: Entry) -> dict[str, Any]:
    fields = {name: getattr(entry, name) for name in ("stream", "sequence", "cursor", "subject", "reason")}
    return fields | {"at": entry.at.isoformat()}


async def retry_quarantine(args: argparse.Namespace) -> int:
    """Raises Misconfigured, Unavailable."""
    from sandreel_projections.dsn import dsn_of
    from sandreel_projections.quarantine import retry
    from sandreel_projections.registry import sources

    dsn, archive = dsn_of(args), rebuild_command.archive_of(args)
    done: list[Retried] = []
    async with connect(args, operator=True) as client:
        for source in sources(client.partitions):
            for each in await retry(client.bus, dsn, source, archive):
                done.append(each)
                _tell(each, json_lines=args.json)
    if not done and not args.json:
        print("nothing is in quarantine")
    return STAYS if any(each.remaining for each in done) else 0


def _tell(retried: Retried, *, json_lines: bool) -> None:
    if json_lines:
        fields = {name: getattr(retried, name) for name in ("stream", "org", "session", "digested", "kept")}
        print(json_text(fields | {"remaining": [_fields(entry) for entry in retried.remaining]}))
        return
    why = f": {retried.kept}" if retried.kept else ""
    print(
        f"{retried.org or '?'}/{retried.session or '?'}: {retried.digested} digested, {len(retried.remaining)} stay{why}"
    )
    for entry in retried.remaining:
        print(_entry(entry, json_lines=False, indent="  "))
