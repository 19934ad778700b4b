"""`sandreel usage`: what model calls were made, for whom, and what they cost."""

# What is heavy is imported when the command runs; printing is what it is for.
# ruff: noqa: PLC0415, T201

from __future__ import annotations

import argparse
import os
import shutil
import sys
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sandreel_core.cli import scope
from sandreel_core.cli.connection import options
from sandreel_core.cli.moment import moment
from sandreel_core.errors import Malformed, NotFound
from sandreel_projections.dsn import dsn_of

if TYPE_CHECKING:
    from collections.abc import Sequence

# What rows are by, as SQL over reel.usage_ledger; the same days, weeks and months as the roll-ups.
_BY = {
    "model": "l.response_model",
    "agent": "l.agent_name",
    "user": "l.user_id",
    "org": "l.org",
    "day": "l.day::text",
    "week": """to_char(l.day, 'IYYY-"W"IW')""",
    "month": "to_char(l.day, 'YYYY-MM')",
}
_TIMES = ("day", "week", "month")
# Of sums, and of calls of a turn.
MAX_ROWS = 1000
MAX_TURNS = 100
_SUMS = """count(*) AS calls, count(*) FILTER (WHERE l.cost_micro_usd IS NULL) AS unpriced_calls,
       count(DISTINCT (l.org, l.session, l.turn)) FILTER (WHERE l.turn IS NOT NULL) AS turns,
       reel.bigint_of(coalesce(sum(l.input_tokens), 0)) AS input_tokens,
       reel.bigint_of(coalesce(sum(l.cache_read_input_tokens), 0)) AS cache_read_input_tokens,
       reel.bigint_of(coalesce(sum(l.cache_creation_input_tokens), 0)) AS cache_creation_input_tokens,
       reel.bigint_of(coalesce(sum(l.output_tokens), 0)) AS output_tokens,
       reel.bigint_of(sum(l.cost_micro_usd)) AS cost_micro_usd"""
_TURNS = f"""SELECT org, session, turn, agent_name, status, calls, unpriced_calls, input_tokens, output_tokens,
       cache_read_input_tokens, cache_creation_input_tokens, cost_micro_usd, budget_micro_usd,
       agent_input_tokens, agent_output_tokens, agent_cost_micro_usd, drift_tokens, drift_micro_usd, drifted
FROM reel.usage_turns WHERE ($1::text IS NULL OR org = $1) AND turn = $2 AND ($3::text IS NULL OR session = $3)
ORDER BY org, session LIMIT {MAX_TURNS + 1}"""  # noqa: S608 - our own words
_CALLS = f"""SELECT org, session, turn, call_id, stored_at, provider_name, request_model, response_model, input_tokens,
       cache_read_input_tokens, cache_creation_input_tokens, output_tokens, cost_micro_usd, charged_micro_usd, prices,
       web_searches, http_status, complete, duration_ms, cursor
FROM reel.usage_ledger WHERE org = $1 AND turn = $2 AND session = $3
ORDER BY stored_at, call_id LIMIT {MAX_ROWS + 1}"""  # noqa: S608 - our own words

_DESCRIPTION = """\
What model calls were made, and what they cost, from the ledger in Postgres. Costs are sums of the prices that are known; calls
without a known price are counted beside them. Days, weeks (ISO 8601) and months are those of UTC.
"""
_EPILOG = """\
examples:
  sandreel usage --by day --since -7d
  sandreel usage --by user --org acme --json
  sandreel usage --turn t-1       each call of one turn, and what its agent said beside what the gateway counted
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "usage",
        parents=[options()],
        help="what model calls were made, and what they cost",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    scope.add_all(parser)
    parser.add_argument("--by", choices=tuple(_BY), help="one row for each (model)")
    parser.add_argument(
        "--since", type=moment, metavar="TIME", help="only calls later than this: 2026-01-31T12:00:00Z, or -7d"
    )
    parser.add_argument("--turn", metavar="TURN", help="each call of this turn")
    parser.add_argument("--session", metavar="SESSION", help="only calls from this session")
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Raises Malformed, Misconfigured, NotFound, Unavailable."""
    from sandreel_core.ids import check_id

    scope.check(args)
    org = None if args.all else _org(args)
    if args.session is not None:
        check_id("session", args.session)
    if args.turn is None:
        await _sums(args, org)
        return 0
    if args.by is not None or args.since is not None:
        raise Malformed("--turn shows the calls of one turn: it goes neither with --by nor with --since")
    await _turn(args, org, check_id("turn", args.turn))
    return 0


def _org(args: argparse.Namespace) -> str:
    """As `connect` fills it in. Raises Malformed, Misconfigured."""
    from sandreel_core.cli.connection import settings
    from sandreel_core.ids import check_org

    return check_org(args.org or os.environ.get("SANDREEL_ORG", "").strip() or settings(args).org)


async def _sums(args: argparse.Namespace, org: str | None) -> None:
    by = args.by or "model"
    if args.since is not None and not isinstance(args.since, datetime):
        raise Malformed("--since takes a time here, no cursor")
    statement = f"""SELECT {_BY[by]} AS "{by}", {_SUMS}, grouping({_BY[by]}) AS total
FROM reel.usage_ledger AS l
WHERE ($1::text IS NULL OR l.org = $1) AND ($2::timestamptz IS NULL OR l.stored_at >= $2)
      AND ($3::text IS NULL OR l.session = $3)
GROUP BY GROUPING SETS (({_BY[by]}), ()) ORDER BY total DESC, {"1" if by in _TIMES else "cost_micro_usd DESC NULLS LAST, 1"}
LIMIT {MAX_ROWS + 2}"""  # noqa: S608 - our own words
    columns, found = await _rows(args, statement, org, args.since, args.session)
    # The sum of all is there also where there is no row, and comes first.
    total, rows = dict(zip(columns, found[0], strict=True)), [dict(zip(columns, row, strict=True)) for row in found[1:]]
    more, rows = len(rows) > MAX_ROWS, rows[:MAX_ROWS]
    if args.json:
        for row in rows:
            _print_json({name: value for name, value in row.items() if name != "total"})
        _say_more(more, f"{MAX_ROWS:,} rows")
        return
    shown = [[row[by] if row[by] is not None else "-", *_figures(row)] for row in rows]
    _print_table((by, *_HEADS), [*shown, ["total", *_figures(total)]])
    _say_more(more, f"{MAX_ROWS:,} rows; the total is of all")


_HEADS = ("turns", "calls", "input", "cached", "output", "cost_usd", "unpriced")


def _figures(row: dict[str, Any]) -> list[Any]:
    names = ("turns", "calls", "input_tokens", "cache_read_input_tokens", "output_tokens")
    return [*(row[name] for name in names), _usd(row["cost_micro_usd"]), row["unpriced_calls"] or None]


async def _turn(args: argparse.Namespace, org: str | None, turn: str) -> None:
    columns, turns = await _rows(args, _TURNS, org, turn, args.session)
    if not turns:
        where = "" if org is None else f" of {org}"
        raise NotFound(f"there is no turn {turn}{where} in the ledger, nor any call of it")
    for values in turns[:MAX_TURNS]:
        row = dict(zip(columns, values, strict=True))
        call_columns, calls = await _rows(args, _CALLS, row["org"], turn, row["session"])
        own = [dict(zip(call_columns, call, strict=True)) for call in calls[:MAX_ROWS]]
        if args.json:
            _print_json({"kind": "turn"} | row)
            for call in own:
                _print_json({"kind": "call"} | call)
        else:
            _print_turn(row, own)
        _say_more(len(calls) > MAX_ROWS, f"{MAX_ROWS:,} calls; the sums are of all {row['calls']:,}")
    _say_more(len(turns) > MAX_TURNS, f"{MAX_TURNS} turns of that name; --session or --org says which")


def _print_turn(row: dict[str, Any], calls: list[dict[str, Any]]) -> None:
    from sandreel_projections.table import cell

    head = [
        row["turn"],
        "in",
        row["session"],
        f"({row['agent_name'] or 'agent unknown'}, {row['status'] or 'unfinished'})",
    ]
    print(cell(" ".join(head)))
    heads = ("at", "model", "input", "cached", "output", "cost_usd", "prices", "status")
    shown = [
        [
            call["stored_at"],
            call["response_model"],
            call["input_tokens"],
            call["cache_read_input_tokens"],
            call["output_tokens"],
            _usd(call["cost_micro_usd"]),
            call["prices"],
            f"{call['http_status'] or ''}{'' if call['complete'] else ' cut off'}".strip(),
        ]
        for call in calls
    ]
    total = [f"{row['calls']} calls", "", row["input_tokens"], row["cache_read_input_tokens"], row["output_tokens"]]
    _print_table(heads, [*shown, [*total, _usd(row["cost_micro_usd"]), "", ""]])
    if row["unpriced_calls"]:
        print(f"without a known price: {row['unpriced_calls']}")
    if row["agent_input_tokens"] is not None:
        cost = _usd(row["agent_cost_micro_usd"])
        said = f"{row['agent_input_tokens']:,} in, {row['agent_output_tokens']:,} out{'' if cost is None else f', ${cost}'}"
        verdict = "they disagree" if row["drifted"] else "they agree"
        print(f"the agent says {said}: {verdict} (tokens {row['drift_tokens']:+,})")


def _say_more(more: bool, what: str) -> None:
    """On stderr, so that rows for programs stay rows."""
    if more:
        print(f"sandreel: these are the first {what}", file=sys.stderr)


def _usd(micro_usd: int | None) -> Decimal | None:
    """Exact: money is no float."""
    return None if micro_usd is None else Decimal(micro_usd).scaleb(-6)


async def _rows(
    args: argparse.Namespace, statement: str, *arguments: Any
) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
    from sandreel_projections.queries import select

    async with select(dsn_of(args), statement, arguments=arguments) as answer:
        return answer.columns, [row async for row in answer.rows]


def _print_json(row: dict[str, Any]) -> None:
    from sandreel_projections.table import json_text

    print(json_text(row))


def _print_table(heads: Sequence[str], rows: list[list[Any]]) -> None:
    from sandreel_projections.table import lines

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print("\n".join(lines(heads, rows, width=width)))
