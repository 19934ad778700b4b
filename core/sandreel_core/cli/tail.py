"""`sandreel tail`: what many sessions print, history first, then live."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from sandreel_core.cli import scope
from sandreel_core.cli.connection import connect, options, section
from sandreel_core.cli.moment import HELP, METAVAR, moment
from sandreel_core.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandreel_core.bus.execs import Snapshot
    from sandreel_core.client import Client
    from sandreel_core.client.tail import TailItem

_OUT = 1
# Views that do not answer in time are done without.
_SNAPSHOT_S = 2.0
# Entry points of this group are coroutine functions (dsn: str, partition: int) -> Snapshot | None.
_SNAPSHOTS = "sandreel.snapshots"
_DESCRIPTION = """\
Show what the named sessions print, or all of an org (--org), or everything (--all): what is stored first, from the
beginning or --since, then what comes, without a seam, in whole lines. Each begins with its session and exec, `!` marks
stderr. A line that has not ended is shown after a second with `…` where its rest is missing, and the rest, when it
comes, with `…` where its beginning was.

--grep takes an expression of RE2, which looks at each line once, however the expression is made: no back-references
and no look-around. Ctrl-C ends it and says how to go on from there.
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "tail",
        parents=[options()],
        help="what many sessions print, history first, then live",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("session", metavar="SESSION", nargs="*", help="these (all of the org unless given)")
    scope.add_all(parser)
    parser.add_argument("--grep", metavar="REGEX", help="only lines that match somewhere")
    parser.add_argument("-i", "--ignore-case", action="store_true", help="for --grep")
    parser.add_argument("--since", type=moment, metavar=METAVAR, help=f"only what was stored later: {HELP}, or `now`")
    parser.add_argument("--stream", choices=("stdout", "stderr"), help="only this one")
    parser.add_argument("--events", action="store_true", help="also every event that is no output")
    parser.add_argument("--no-follow", action="store_true", help="end with what is stored now")
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Raises Malformed, Misconfigured, NotFound, Unavailable; BrokenPipeError when nobody reads any more."""
    import asyncio

    from sandreel_core.cli.entry import INTERRUPTED
    from sandreel_core.cli.grep import matcher
    from sandreel_core.cli.interrupts import on_interrupt

    scope.check(args)
    if args.all and args.session:
        raise Malformed("sessions belong to an org: name it with --org instead of --all")
    judge = matcher(args.grep, ignore_case=args.ignore_case) if args.grep is not None else None
    async with connect(args) as client:
        shown = _Shown(args)
        async with asyncio.TaskGroup() as group:
            showing = group.create_task(_show(client, args, judge, shown))

            def pressed(_: int) -> None:
                showing.cancel()

            with on_interrupt(pressed):
                await asyncio.wait([showing])
        if showing.cancelled():
            shown.say_how_to_go_on(args)
            return INTERRUPTED
    return 0


async def _show(client: Client, args: argparse.Namespace, judge: Any, shown: _Shown) -> None:
    from contextlib import aclosing

    from sandreel_core.cli.pipes import write_all

    items = client.tail(
        scope.org_of(args),
        args.session,
        since=args.since,
        judge=judge,
        stream=args.stream,
        events=args.events,
        live=not args.no_follow,
        snapshots=_snapshots(args),
    )
    async with aclosing(items):
        async for batch in items:
            await write_all(_OUT, shown.text(batch).encode())


class _Shown:
    """Items as lines of text, and where to go on from."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._json = args.json
        self._colours = sys.stdout.isatty()
        self._with_org = args.all
        self._cursors: dict[int, Any] = {}

    def text(self, batch: list[TailItem]) -> str:
        import msgspec

        from sandreel_core.client.tail import TailEvent, TailLine

        lines = []
        for item in batch:
            if isinstance(item, TailLine | TailEvent):
                self._cursors[item.cursor.partition] = item.cursor
            line = msgspec.json.encode(_object(item)).decode() if self._json else self._line(item)
            if line is not None:
                lines.append(line + "\n")
        return "".join(lines)

    def say_how_to_go_on(self, args: argparse.Namespace) -> None:
        """A cursor is of one partition, so with several there is none to name."""
        if len(self._cursors) == 1:
            [cursor] = self._cursors.values()
            words = [*(["--all"] if args.all else ["--org", args.org]), "--since", str(cursor), *args.session]
            print(f"sandreel: to go on from here: sandreel tail {' '.join(words)}", file=sys.stderr)

    def _line(self, item: TailItem) -> str | None:
        """None for what only programs are told."""
        from sandreel_core.cli.text import coloured, dimmed, plain
        from sandreel_core.client.tail import TailEvent, TailGap, TailLine

        if isinstance(item, TailLine):
            place = f"{item.where.session}/{item.where.key}{'!' if item.stream == 'stderr' else ''}"
            text = plain(item.line.data) if self._colours else item.line.data.decode("utf-8", "replace")
            text = f"{'' if item.line.begun else '…'}{text}{'' if item.line.ended else '…'}"
        elif isinstance(item, TailEvent):
            place = "/".join(each for each in (item.where.session, item.where.key) if each)
            said = plain(_said(item).encode())
            text = dimmed(said) if self._colours else said
        elif isinstance(item, TailGap):
            place = f"{item.where.session}/{item.where.key}" if item.where else "sandreel"
            text = f"missing: {item.why}"
        else:
            return None
        if self._with_org and not isinstance(item, TailGap):
            place = f"{item.where.org}/{place}"
        return f"{coloured(place, place.removesuffix('!')) if self._colours else place}: {text}"


def _said(item: Any) -> str:
    import msgspec

    return f"{item.event.type} {msgspec.json.encode(item.event.data).decode()}"


def _object(item: TailItem) -> dict[str, Any]:
    import msgspec

    from sandreel_core.client.tail import TailEvent, TailGap, TailLine

    where = getattr(item, "where", None)
    place = {"org": where.org, "session": where.session, where.aggregate: where.key} if where is not None else {}
    place = {name: value for name, value in place.items() if value}
    if isinstance(item, TailLine):
        line = item.line
        found = {"stream": item.stream, "line": line.number, "text": line.data.decode("utf-8", "replace")}
        found |= {"begun": line.begun, "ended": line.ended}
        return {"type": "line", **place, **found, "cursor": str(item.cursor), "stored_ns": item.stored_ns}
    if isinstance(item, TailEvent):
        data = msgspec.to_builtins(item.event.data)
        return {"type": item.event.type, **place, "cursor": str(item.cursor), "stored_ns": item.stored_ns, "data": data}
    if isinstance(item, TailGap):
        return {"type": "missing", **place, "why": item.why}
    return {"type": "caught_up"}


def _snapshots(args: argparse.Namespace) -> Callable[[int], Awaitable[Snapshot | None]] | None:
    """What the views know of where execs stand, where there are views; they are only a short cut."""
    import asyncio
    from importlib.metadata import entry_points

    from sandreel_core.errors import SandreelError
    from sandreel_core.settings import Postgres

    dsn = section(args, Postgres).dsn
    points = list(entry_points(group=_SNAPSHOTS))
    if dsn is None or not points:
        return None

    async def look(partition: int) -> Snapshot | None:
        try:
            async with asyncio.timeout(_SNAPSHOT_S):
                found: Snapshot | None = await points[0].load()(dsn, partition)
                return found
        except (SandreelError, TimeoutError, ImportError):
            return None

    return look
