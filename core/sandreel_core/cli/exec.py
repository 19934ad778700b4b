"""`sandreel exec`: run a job in a session as if it ran here."""

from __future__ import annotations

import argparse
import asyncio
import os
import stat
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.agents import agent_option, reader_of
from sandreel_core.cli.connection import connect, options, options_of
from sandreel_core.cli.duration import seconds, size, variable
from sandreel_core.cli.hangup import ends_with_terminal
from sandreel_core.cli.interactive import opened, terminal_options, terminal_type, window_size
from sandreel_core.cli.pipes import STDIN, STDOUT
from sandreel_core.errors import Malformed, Unavailable

if TYPE_CHECKING:
    from sandreel_core.client import Client, ExecHandle

_SMALL_STDIN_BYTES = 48 * 1024  # goes with the command itself

_DESCRIPTION = """\
Run a job in a session and stream what it prints: stdout to stdout, stderr to stderr, byte for byte.
What is piped in reaches the job. It ends with the job's exit code.

Ctrl-C once interrupts the job (SIGINT); a second time leaves it running and says how to come back.
If this process dies the job goes on, and nothing that it prints is lost.

With -it the job has a terminal, which is this one: every key goes to it, also Ctrl-C, and the size follows. Ctrl-P Ctrl-Q
leaves it running; `sandreel attach -it` comes back, from anywhere, to the same screen. So it is left when the terminal
vanishes. What is typed is stored nowhere; what the job echoes is output.
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "exec",
        parents=[options()],
        help="run a job in a session",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="sandreel exec [-it] [options] SESSION -- CMD [ARG ...]\n       sandreel exec [-it] [options] SESSION --shell TEXT",
        allow_abbrev=False,
    )
    parser.add_argument("session", metavar="SESSION")
    terminal_options(parser)
    parser.add_argument("--shell", metavar="TEXT", help="run this with `bash -lc` instead of CMD")
    parser.add_argument("--id", metavar="EXEC", help="the exec's id, used once per session (made up unless given)")
    parser.add_argument(
        "-d", "--detach", action="store_true", help="print the exec's id and leave it running, without input"
    )
    agent_option(parser)
    parser.add_argument("--cwd", metavar="PATH", help="below the workspace; must exist")
    parser.add_argument("-e", "--env", type=variable, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--no-stdin", action="store_true", help="the job reads nothing, whatever is piped in here")
    limits = parser.add_argument_group("limits, none unless given")
    limits.add_argument("--timeout", type=seconds, metavar="TIME", help="SIGTERM after so long, SIGKILL 5 s later")
    limits.add_argument("--no-output-timeout", type=seconds, metavar="TIME", help="the same after so long a silence")
    limits.add_argument("--stdout-max-bytes", type=size, metavar="SIZE", help="cut stdout at exactly so many bytes")
    limits.add_argument("--stderr-max-bytes", type=size, metavar="SIZE", help="cut stderr at exactly so many bytes")
    limits.add_argument("--rate-limit", type=size, metavar="SIZE", help="bytes a second; a faster job waits")
    limits.add_argument("--leftovers", choices=("keep", "kill"), default="keep", help="processes that outlive the job")
    parser.set_defaults(run=run, takes_rest=True)


@ends_with_terminal(STDOUT)
async def run(args: argparse.Namespace) -> int:
    """Raises Refused, Unavailable, Misconfigured, Malformed."""
    if (args.shell is None) is not bool(args.rest):
        raise Malformed("give the job after --, or as --shell TEXT: sandreel exec SESSION -- CMD [ARG ...]")
    if args.agent and (args.tty or args.detach):
        raise Malformed("--agent is for who reads what the job prints: leave out -t and -d")
    agent = reader_of(args)
    if args.tty and args.interactive and not args.detach:
        return await _in_terminal(args)
    initial, piped = (b"", False) if args.no_stdin or args.detach else piped_in(terminal=args.interactive)
    async with connect(args) as client:
        from sandreel_core.cli.job import Job

        handle = await _start(client, args, initial, hold=piped, size=window_size() if args.tty else None)
        job = Job(handle, args.session, json=args.json, agent=agent, options=options_of(args))
        if args.detach:
            await job.announce()
            return 0
        return await job.watch(stdin=STDIN if piped else None, interruptible=True)


async def _in_terminal(args: argparse.Namespace) -> int:
    async with opened(args) as (tty, detach), connect(args) as client:
        from sandreel_core.cli.console import Console

        size = tty.size
        handle = await _start(client, args, b"", hold=True, size=size)
        return await Console(handle, tty, args.session, detach=detach, options=options_of(args)).run(size=size)


async def _start(
    client: Client, args: argparse.Namespace, stdin: bytes, *, hold: bool, size: tuple[int, int] | None
) -> ExecHandle:
    from sandreel_core import clock
    from sandreel_core.contract.exec import Terminal

    exec_id = args.id or clock.new_token("x-")
    try:
        return await client.exec(
            args.org,
            args.session,
            args.rest or None,
            shell=args.shell,
            exec=exec_id,
            cwd=args.cwd,
            env=(terminal_type() if size else {}) | dict(args.env),
            stdin=stdin,
            hold_stdin=hold,
            tty=Terminal(cols=size[0], rows=size[1]) if size else None,
            timeout_s=args.timeout,
            no_output_timeout_s=args.no_output_timeout,
            stdout_max_bytes=args.stdout_max_bytes,
            stderr_max_bytes=args.stderr_max_bytes,
            rate_limit_bytes_per_s=args.rate_limit,
            leftovers=args.leftovers,
            # Nobody should be surprised later by a job that was given up here.
            deadline=clock.now() + timedelta(seconds=client.answer_timeout_s),
        )
    except asyncio.CancelledError:
        cancel = f"sandreel cancel {args.session} {exec_id}{options_of(args)}"
        print(f"sandreel: interrupted; if it did start: {cancel}", file=sys.stderr)
        raise
    except Unavailable as error:
        attach = f"sandreel attach {args.session} {exec_id}{options_of(args)}"
        raise Unavailable(f"{error}; `{attach}` shows it if it did start") from error


def piped_in(*, terminal: bool) -> tuple[bytes, bool]:
    """(what goes with the command, whether more has to be piped). A terminal is piped, line by line, only if asked for;
    a closed stdin never."""
    try:
        mode = os.fstat(STDIN)
    except OSError:
        return b"", False
    if os.isatty(STDIN):
        return b"", terminal
    if stat.S_ISREG(mode.st_mode):
        left = mode.st_size - os.lseek(STDIN, 0, os.SEEK_CUR)
        if left <= _SMALL_STDIN_BYTES:
            return os.read(STDIN, max(0, left)), False
    elif stat.S_ISCHR(mode.st_mode) and os.path.samestat(mode, os.stat(os.devnull)):  # noqa: PTH116
        return b"", False
    return b"", True
