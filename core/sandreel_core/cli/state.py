"""`sandreel state`, and `sandreel session show --at`: how things stood at some place of the log."""

from __future__ import annotations

import argparse
import shutil
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.connection import connect, options
from sandreel_core.cli.moment import HELP, METAVAR, moment
from sandreel_core.cli.text import clean

if TYPE_CHECKING:
    from sandreel_core.as_of import ExecAt, SessionAt
    from sandreel_core.client.standing import StateAt

_DESCRIPTION = """\
Fold the log up to a cursor or a time: every session of the org with its state then, what ran in it, how many lines
each exec had printed and what it had printed last. Times are those of the stream's server.
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "state",
        parents=[options()],
        help="how an org's sessions and execs stood at some moment",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-a", "--all", action="store_true", help="destroyed sessions and execs that had ended, too")
    add_at(parser)
    parser.set_defaults(run=run)


def add_at(parser: argparse.ArgumentParser) -> None:
    """`--at` and `--last`."""
    parser.add_argument("--at", type=moment, metavar=METAVAR, help=f"{HELP}; now unless given")
    parser.add_argument("--last", type=_count, default=3, metavar="N", help="last lines of each stream (3, up to 100)")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 100")
    return int(text)


async def run(args: argparse.Namespace) -> int:
    """Raises Malformed, Unavailable, Misconfigured."""
    async with connect(args) as client:
        state = await client.state_at(args.org, at=args.at, last_lines=args.last)
    shown = [one for one in state.sessions if one.state.phase != "none" and (args.all or one.state.exists)]
    if args.json:
        for one in shown:
            _print_json(fields(one, state))
        return 0
    _say_where(state)
    for one in shown:
        print(f"\n{one.session}  {one.state.phase}{'  pinned' if one.state.pinned else ''}")
        _print_execs(one.execs if args.all else one.running)
    return 0


async def show(args: argparse.Namespace) -> int:
    """`session show --at`. Raises NotFound too, when there was no such session by then."""
    async with connect(args) as client:
        state = await client.state_at(args.org, args.session, at=args.at, last_lines=args.last)
    [one] = state.sessions
    found = fields(one, state)
    if args.json:
        _print_json(found)
        return 0
    from sandreel_core.cli.text import field_line

    _say_where(state)
    for name, value in found.items():
        if name not in ("execs", "missing", "at") and value not in (None, "", [], {}):
            print(field_line(name, value))
    _print_execs(one.execs)
    return 0


def fields(one: SessionAt, state: StateAt) -> dict[str, Any]:
    """As `session show --json` gives them, with `at` (the cursor that was folded up to) and the execs' last lines."""
    import msgspec

    from sandreel_core.contract.subjects import partition_of

    at = state.cursors[partition_of(one.session, len(state.cursors))]
    names = {"at": str(at), "org": one.org, "session": one.session, "phase": one.state.phase}
    found = {**names, **msgspec.to_builtins(one.state), "cursor": f"{at.epoch}:{at.partition}:{one.sequence}"}
    return found | {"execs": [_exec_fields(each) for each in one.execs], "missing": list(state.missing)}


def _exec_fields(one: ExecAt) -> dict[str, Any]:
    import msgspec

    found = {"exec": one.exec_id, "phase": one.state.phase, **msgspec.to_builtins(one.state)}
    found |= {"accepted": _time(one.accepted_ns), "changed": _time(one.changed_ns), "missing": list(one.missing)}
    lines = [
        {
            "stream": last.stream,
            "line": last.line.number,
            "text": last.line.data.decode("utf-8", "replace"),
            "ended": last.line.ended,
            "stored_at": _time(last.at_ns),
        }
        for last in one.last
    ]
    return found | {"last": lines}


def _print_json(value: dict[str, Any]) -> None:
    from sandreel_core.json_line import json_text

    print(json_text(value))


def _say_where(state: StateAt) -> None:
    print(f"as of {','.join(map(str, state.cursors))}")
    for sentence in state.missing:
        print(f"missing: {clean(sentence)}")


def _print_execs(execs: tuple[ExecAt, ...]) -> None:
    from sandreel_core.cli.text import cut, plain, table

    if not execs:
        return
    rows: list[tuple[str, ...]] = [("EXEC", "STATE", "EXIT", "STDOUT", "STDERR", "ACCEPTED", "LAST HEARD OF")]
    for one in execs:
        counts = [one.state.lines.get(stream, 0) for stream in ("stdout", "stderr")]
        lines = [f"{count:,} line{'' if count == 1 else 's'}" for count in counts]
        phase = one.state.phase if one.state.phase != "none" else "unknown"
        rows.append((one.exec_id, phase, _exit(one), *lines, _time(one.accepted_ns), _time(one.changed_ns)))
    print()
    print("\n".join(table(rows)))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    for one in execs:
        if one.last or one.missing:
            print(f"\n{one.exec_id}:")
        for sentence in one.missing:
            print(f"  missing: {clean(sentence)}")
        for last in one.last:
            stream = "" if last.stream == "stdout" else "err "
            unfinished = "" if last.line.ended else " (no newline yet)"
            print(cut(f"  {stream}{last.line.number:>6,}  {plain(last.line.data)}{unfinished}", width))


def _exit(one: ExecAt) -> str:
    end = one.state.exited
    if end is None:
        return one.state.lost.cause if one.state.lost else ""
    return str(end.exit_code) if end.exit_code is not None else end.signal or end.reason


def _time(time_ns: int) -> str:
    """UTC, to the microsecond: what `--at` takes."""
    if not time_ns:
        return ""
    return (
        datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
        .replace(microsecond=time_ns % 1_000_000_000 // 1000)
        .isoformat()
        .replace("+00:00", "Z")
    )
