"""`sandreel sql`: ask the views."""

# What is heavy is imported when the command runs; printing is what it is for.
# ruff: noqa: PLC0415, T201

from __future__ import annotations

import argparse
import shutil
import sys
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.connection import options
from sandreel_core.errors import Malformed
from sandreel_projections.dsn import dsn_of

if TYPE_CHECKING:
    from sandreel_projections.queries import Answer

# Rows that are looked at before the first is printed, so that columns fit.
_PAGE_ROWS = 500

_DESCRIPTION = """\
Run one statement that reads, over the views of the schema `reel`:

  reel.sessions          one row per session: its state, owner, times, why it stopped
  reel.session_timeline  one row per stage of a session's life, with how long it took
  reel.execs             one row per job: argv, exit code, lines, bytes, duration, first and last cursor
  reel.exec_lines        every line of output by number (filter by exec)
  reel.commands          every command, who sent it from where, and its one outcome
  reel.audit_log         every command and every event: who, what, when, caused by what
  reel.ops               one row per agent turn: state, progress, cost so far; reel.turn_events is its timeline
  reel.usage_ledger      every model call and its cost; reel.usage_daily, _weekly, _monthly and _turns add up
  reel.session_states    how each session is, in one word: Ready, Working, Sleeping, …
  reel.credential_audit  who held which credential from where to where in the log, and for what
  reel.projection_lag    how far the views are behind the streams
  reel.quarantine        events that no view could digest

Without a statement: every view, and every column with what it means.
"""
_EPILOG = """\
examples:
  sandreel sql "SELECT exec, phase, exit_code, stdout_lines FROM reel.execs ORDER BY accepted_at DESC LIMIT 10"
  sandreel sql "SELECT line, text FROM reel.search('default', 'FAILED', exec => 'x-1')"
  sandreel sql "SELECT line, text FROM reel.lines_of('default', 'demo', 'x-1', 100, 120)"
"""
_CATALOGUE = """\
SELECT c.relname AS view, a.attname AS "column", format_type(a.atttypid, a.atttypmod) AS type,
       col_description(c.oid, a.attnum) AS meaning
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'reel'::regnamespace AND c.relkind IN ('r', 'v', 'p') AND NOT c.relispartition
  AND c.relname <> 'schema_version'
ORDER BY c.relname, a.attnum"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "sql",
        parents=[options(org=False)],
        help="ask the views with SQL",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("statement", nargs="?", metavar="STATEMENT", help="`-` reads it from standard input")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="give up after so many seconds (60)")
    parser.add_argument("--role", metavar="NAME", help="as this analyst would see it (see `sandreel analyst`)")
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Raises Malformed, Misconfigured, NotFound, Unavailable."""
    from sandreel_projections.queries import select

    statement = _CATALOGUE if args.statement is None else sys.stdin.read() if args.statement == "-" else args.statement
    if not 0 < args.timeout < 10**6:
        raise Malformed(f"--timeout {args.timeout:g} is not a number of seconds above 0")
    if not statement.strip():
        raise Malformed("the statement is empty")
    async with select(dsn_of(args), statement, timeout_s=args.timeout, role=args.role) as answer:
        await (_print_json(answer) if args.json else _print_table(answer))
    return 0


async def _print_json(answer: Answer) -> None:
    from sandreel_projections.table import json_text

    async for row in answer.rows:
        print(json_text(dict(zip(answer.columns, row, strict=True))))


async def _print_table(answer: Answer) -> None:
    from sandreel_projections.table import lines

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    page: list[tuple[Any, ...]] = []
    count, header = 0, True

    def show() -> None:
        printed = lines(answer.columns, page, width=width)
        print("\n".join(printed if header else printed[2:]))

    async for row in answer.rows:
        page.append(row)
        count += 1
        if len(page) == _PAGE_ROWS:
            show()
            page, header = [], False
    if page or header:
        show()
    if sys.stdout.isatty():
        print(f"({count} row{'' if count == 1 else 's'})")
