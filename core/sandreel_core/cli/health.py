"""`sandreel health`: one line for every role that runs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.connection import data_of, options
from sandreel_core.cli.roles import Told, add_option, ask, places
from sandreel_core.cli.text import clean

if TYPE_CHECKING:
    from sandreel_core.health import Reason


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "health",
        parents=[options(org=False)],
        help="how every role is",
        description="Ask every role for its /healthz; one line each. Exit code 0, or 1 when one is failing or does not"
        " answer. Its /metrics is at the same address, for Prometheus. `sandreel doctor` reads both and says what to do.",
        allow_abbrev=False,
    )
    add_option(parser)
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Raises Misconfigured when no role is known."""
    from sandreel_core.errors import Misconfigured

    wanted = places(args)
    if not wanted:
        raise Misconfigured(
            f"no role runs on {data_of(args)}: start them with `sandreel up`, or say where one is with --at HOST:PORT"
        )
    told = await ask(wanted)
    for each in told:
        print(_object(each) if args.json else _line(each))
    return int(any(each.reading is None or each.reading.report.status == "failing" for each in told))


def _line(told: Told) -> str:
    if told.reading is None:
        return f"absent    {told.name:<12} {told.place.listen:<22} {clean(told.problem)}"
    report = told.reading.report
    words = f"{report.version}, pid {report.pid}, up {span(report.uptime_s)}"
    reasons = "; ".join(_reason(reason) for reason in report.reasons)
    line = f"{report.status:<9} {told.name:<12} {told.place.listen:<22} {words}"
    return clean(f"{line}; {reasons}" if reasons else line)


def _reason(reason: Reason) -> str:
    return f"{reason.part}: {reason.text} (for {span(reason.for_s)})"


def span(seconds: float) -> str:
    """A duration with its greatest unit: `4 s`, `12 min`, `3.5 h`, `2.1 d`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} d"


def _object(told: Told) -> str:
    import msgspec

    from sandreel_core.json_line import json_text

    fields: dict[str, Any] = {"listen": told.place.listen}
    if told.reading is None:
        return json_text({"role": told.place.name, "status": "absent", **fields, "problem": told.problem})
    return json_text(msgspec.to_builtins(told.reading.report) | fields)
