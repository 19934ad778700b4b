"""`sandreel health`: one line for every role, and for every server that the stack runs itself."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.connection import data_of, options
from sandreel_core.cli.roles import Told, add_option, ask, places
from sandreel_core.cli.servers import Server, servers
from sandreel_core.cli.text import clean

if TYPE_CHECKING:
    from sandreel_core.health import Reason


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "health",
        parents=[options(org=False)],
        help="how every role and server is",
        description="Ask every role for its /healthz, and the servers of `sandreel up` whether they answer; one line each, also"
        " for what is down, with why. Exit code 0, or 1 when one is failing or does not answer. A role's /metrics is at the"
        " same address, for Prometheus. `sandreel doctor` reads both and says what to do.",
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
    found = [] if args.at else await servers(args)
    for server in found:
        print(_server_object(server) if args.json else _server_line(server))
    return int(any(server.problem for server in found) or any(_is_bad(each) for each in told))


def _is_bad(told: Told) -> bool:
    if told.reading is None:
        return not told.place.off
    return told.reading.report.status == "failing"


def _server_line(server: Server) -> str:
    if server.problem:
        return clean(f"absent    {server.name:<12} {server.listen:<22} {server.problem}")
    return clean(f"ok        {server.name:<12} {server.listen:<22} pid {server.pid}, up {span(server.up_s)}")


def _server_object(server: Server) -> str:
    from sandreel_core.json_line import json_text

    if server.problem:
        return json_text(
            {"role": server.name, "status": "absent", "listen": server.listen or None, "problem": server.problem}
        )
    return json_text(
        {
            "role": server.name,
            "status": "ok",
            "pid": server.pid,
            "uptime_s": round(server.up_s, 3),
            "listen": server.listen,
        }
    )


def _line(told: Told) -> str:
    if told.reading is None:
        return f"{_absence(told):<9} {told.name:<12} {told.place.listen:<22} {clean(told.problem)}"
    report = told.reading.report
    words = f"{report.version}, pid {report.pid}, up {span(report.uptime_s)}"
    reasons = "; ".join(_reason(reason) for reason in report.reasons)
    line = f"{report.status:<9} {told.name:<12} {told.place.listen:<22} {words}"
    return clean(f"{line}; {reasons}" if reasons else line)


def _reason(reason: Reason) -> str:
    return f"{reason.part}: {reason.text} (for {span(reason.for_s)})"


def _absence(told: Told) -> str:
    return "off" if told.place.off else "absent"


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

    fields: dict[str, Any] = {"listen": told.place.listen or None}
    if told.reading is None:
        return json_text({"role": told.place.name, "status": _absence(told), **fields, "problem": told.problem})
    return json_text(msgspec.to_builtins(told.reading.report) | fields)
