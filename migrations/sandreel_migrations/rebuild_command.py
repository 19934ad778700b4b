"""`sandreel projections rebuild`: this is where the views' code and the migrations meet."""

# What is heavy is imported when the command runs.
# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.connection import connect, data_of, options
from sandreel_core.contract.cursor import Cursor
from sandreel_core.errors import Malformed

if TYPE_CHECKING:
    from sandreel_projections.compare import Comparison
    from sandreel_projections.order import Outcome
    from sandreel_projections.report import Report

DIFFERS = 1
# What keeps the live views comes first where both want the same processor.
_NICENESS = 10
_DESCRIPTION = """\
Make the views again from the archive and the stream, in a schema of their own beside the live ones, which go on being
written and read. Then compare row by row, both sides at the same place of the log, and, if nothing differs, put the new
ones in the place of the live ones in one transaction. The old ones are kept until `sandreel projections drop-old`.

Interrupted or killed, the same command goes on where it was.
"""
_EPILOG = """\
exit codes: 0 done; 1 something differs or could not be compared, and nothing was swapped; 2 it could not be done.
"""


def add(verbs: Any) -> None:
    parser = verbs.add_parser(
        "rebuild",
        parents=[options(org=False)],
        help="make views again from the log, compare, swap",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--view",
        action="append",
        default=[],
        metavar="VIEW",
        help="only this one and what it is made of; may be repeated",
    )
    parser.add_argument(
        "--to", metavar="CURSOR", help="stop at this place (epoch:partition:sequence); nothing is swapped"
    )
    parser.add_argument("--compare-only", action="store_true", help="swap nothing; what was rebuilt is kept")
    parser.add_argument(
        "--accept-differences", action="store_true", help="swap also when rows differ (a fold was mended, say)"
    )
    parser.add_argument(
        "--accept-uncompared",
        action="store_true",
        help="swap also where live rows cannot be compared: their stream was restored or replaced",
    )
    add_archive(parser)
    parser.set_defaults(run=run)


def add_archive(parser: argparse.ArgumentParser) -> None:
    """`--archive`, which `archive_of` reads."""
    parser.add_argument("--archive", type=Path, metavar="DIR", help="where archived execs are (DATA/archive)")


async def run(args: argparse.Namespace) -> int:
    """Raises Malformed, Misconfigured, Unavailable, Conflict."""
    from sandreel_migrations.upgrade import upgrade
    from sandreel_projections.dsn import dsn_of
    from sandreel_projections.order import Order
    from sandreel_projections.rebuild import Rebuild
    from sandreel_projections.registry import sources
    from sandreel_projections.report import JsonLines, Terminal

    report: Report = JsonLines() if args.json else Terminal(sys.stdout)
    order = Order(
        views=tuple(name.removeprefix("reel.") for name in args.view),
        to=None if args.to is None else Cursor.parse(args.to),
        compare_only=args.compare_only,
        accept_differences=args.accept_differences,
        accept_uncompared=args.accept_uncompared,
        archive=archive_of(args),
    )
    if order.to is not None and (order.compare_only or order.accept_differences or order.accept_uncompared):
        raise Malformed("--to compares and swaps nothing: it goes neither with --compare-only nor with --accept-…")
    dsn = dsn_of(args)

    os.nice(_NICENESS)

    async def make_schema(name: str) -> str:
        return await upgrade(dsn, schema=name, wait_s=order.patience_s)

    async with connect(args, operator=True) as client:
        rebuild = Rebuild(client.bus, dsn, sources(client.partitions), make_schema, report, order)
        return tell(await rebuild.run(), order.compare_only, report)


def archive_of(args: argparse.Namespace) -> Path | None:
    """Raises Malformed when it was named and is no directory; without it the usual one, if it is there."""
    if args.archive is not None:
        if not args.archive.is_dir():
            raise Malformed(f"--archive {args.archive} is no directory")
        return Path(args.archive)
    usual = data_of(args) / "archive"
    return usual if usual.is_dir() else None


def tell(outcome: Outcome, compare_only: bool, report: Report) -> int:
    """The exit code."""
    for comparison in outcome.compared:
        _tell_one(comparison, report)
    for each in outcome.uncompared:
        report.say(
            "not_compared",
            f"reel.{each.table}: not compared: {each.why}",
            table=each.table,
            why=each.why,
        )
    if outcome.not_compared:
        report.say("not_compared", outcome.not_compared, why=outcome.not_compared)
    _tell_quarantine(outcome, report)
    if outcome.swapped is not None:
        old = (
            f"; the old ones are in {outcome.swapped} until `sandreel projections drop-old`" if outcome.swapped else ""
        )
        report.say("swapped", f"the rebuilt views are live now{old}", old_schema=outcome.swapped or None)
        return 0
    if outcome.differing and not compare_only:
        text = f"nothing was swapped: {_rows(outcome.differing)} differ; look at them in reel_rebuild, then --accept-differences"
        report.say("differs", text, differing=outcome.differing)
    if outcome.uncompared and not compare_only:
        names = ", ".join(f"reel.{each.table}" for each in outcome.uncompared)
        text = (
            f"nothing was swapped: the live rows of {names} could not be compared, and would be replaced by those in"
            " reel_rebuild: look at both, then --accept-uncompared"
        )
        report.say("uncompared", text, tables=[each.table for each in outcome.uncompared])
    if outcome.compared and (compare_only or not (outcome.differing or outcome.uncompared)):
        report.say(
            "kept", "nothing was swapped; `sandreel projections rebuild` goes on from here", differing=outcome.differing
        )
    return DIFFERS if outcome.differing or outcome.uncompared else 0


def _tell_quarantine(outcome: Outcome, report: Report) -> None:
    """Events that one side alone could not digest are a usual reason for a difference."""
    if outcome.only_live:
        report.say(
            "quarantine",
            f"the live views have {_events(outcome.only_live)} in quarantine that the rebuilt ones have not:"
            " `sandreel projections quarantine retry` takes in what can be digested now, without a swap",
            only_live=outcome.only_live,
        )
    if outcome.only_rebuilt:
        report.say(
            "quarantine",
            f"the rebuilt views have {_events(outcome.only_rebuilt)} in quarantine that the live ones have not: they"
            " lack these; after a swap `sandreel projections quarantine ls` says why, and `quarantine retry` tries again",
            only_rebuilt=outcome.only_rebuilt,
        )


def _tell_one(comparison: Comparison, report: Report) -> None:
    for each in comparison.first:
        key = ", ".join(f"{name}={value}" for name, value in each.key.items())
        if each.column:
            text = f"  {each.table} ({key}) {each.column}: live {_short(each.live)}, rebuilt {_short(each.rebuilt)}"
        else:
            text = f"  {each.table} ({key}): only {'the rebuilt views have' if each.live is None else 'the live views have'} it"
        report.say(
            "difference",
            text,
            table=each.table,
            key=each.key,
            column=each.column or None,
            live=each.live,
            rebuilt=each.rebuilt,
        )
    more = comparison.differing - len({tuple(each.key.values()) for each in comparison.first})
    more_text = f" (the first are named; {more:,} more)" if more > 0 else ""
    verdict = "nothing differs" if not comparison.differing else f"{_rows(comparison.differing)} differ{more_text}"
    report.say(
        "compared",
        f"reel.{comparison.table}: {_rows(comparison.rows)} compared, {verdict}",
        table=comparison.table,
        rows=comparison.rows,
        differing=comparison.differing,
    )


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _events(count: int) -> str:
    return f"{count:,} event{'' if count == 1 else 's'}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
