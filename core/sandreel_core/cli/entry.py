"""`sandreel`: the parser of every command, and what becomes of an error."""

from __future__ import annotations

import argparse
import asyncio
import errno
import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import NoReturn

from sandreel_core import __version__
from sandreel_core.cli.completion import ASKED, complete
from sandreel_core.cli.moment import joined
from sandreel_core.cli.pipes import forsake
from sandreel_core.cli.text import is_utf8
from sandreel_core.cli.usual import Commands
from sandreel_core.errors import Denied, Malformed, NotFound, SandreelError, Unavailable
from sandreel_core.log import for_people

# Commands of this package, in the order in which help shows them; those of others are entry points.
_COMMANDS = (
    *("up", "demo", "turn", "steering", "session", "exec", "run", "attach", "replay", "cancel", "cp", "files", "env"),
    *(
        "state",
        "tail",
        "cast",
        "events",
        "commands",
        "archive",
        "backup",
        "streams",
        "access",
        "egress",
        "top",
        "health",
        "doctor",
        "completion",
    ),
)
_GROUP = "sandreel.commands"
# Arguments that may be bytes: `cp` judges its paths itself (others of this machine are no str), a line may hold any.
_BYTES = frozenset({"source", "target", "grep"})
OPERATOR_ERROR = 2
BROKEN_PIPE = 141
INTERRUPTED = 130
_MACHINE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS})

_DESCRIPTION = "Sandbox sessions for coding agents, whose whole life is one ordered, durable record."
_EPILOG = """\
examples:
  sandreel up                                   everything on this machine, in one terminal
  sandreel session create demo                  a session of that name, ready for work
  sandreel exec demo -- pytest -v               run a job; its exit code becomes this one
  sandreel turn "Fix the failing test"          let a coding agent work, and watch it
  sandreel attach demo x-1 --after CURSOR       see the rest of a job from where you left
  sandreel replay demo x-1 --speed 10           see it again, ten times as fast

exit codes: the job's own (128 + n when signal n ended it) for `exec`, `run`, `attach` and `replay`;
  125 when it is not known how the job ended, 126 when it could not be started, 130 when you detached;
  2 when sandreel could not do what was asked, with one line that says why.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code, for `sys.exit`."""
    given = list(sys.argv[1:] if argv is None else argv)
    head, rest = _split(given)
    if ASKED in os.environ:
        complete(_parser())
    args = _parser().parse_args(joined(head))
    args.rest = rest
    for_people()
    try:
        if rest is not None and not getattr(args, "takes_rest", False):
            raise Malformed("only `exec`, `run` and `turn` take something after --")
        _check_utf8(args)
        return _run(args)
    except BrokenPipeError:
        forsake(sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except SandreelError as error:
        return complain(error)
    except OSError as error:
        if not _is_the_machines(error):
            raise
        return _complain_of_machine(error)
    except BaseExceptionGroup as group:
        return _complain_group(group)


def _check_utf8(args: argparse.Namespace) -> None:
    """Raises Malformed for an argument that no message can hold."""
    for name, value in vars(args).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and name not in _BYTES and not is_utf8(text):
                where = "the command after --" if name == "rest" else name
                raise Malformed(f"{where}: {text[:80]!r} is not UTF-8")


def complain(error: SandreelError) -> int:
    """One line that says what to do; the exit code."""
    text = " ".join(str(error).split())
    if isinstance(error, Unavailable):
        text += " (`sandreel doctor` says what is missing)"
    elif isinstance(error, Denied):
        text += " (are [bus] creds, or user and password, right?)"
    elif isinstance(error, NotFound) and not text:
        text = "not found"
    print(f"sandreel: {text}", file=sys.stderr)
    return OPERATOR_ERROR


def _is_the_machines(error: BaseException) -> bool:
    """What an operator can mend; any other OSError is a bug and shows itself."""
    return isinstance(error, OSError) and error.errno in _MACHINE


def _complain_of_machine(error: OSError) -> int:
    where = f"{error.filename}: " if error.filename is not None else ""
    print(f"sandreel: {where}{(error.strerror or str(error)).lower()}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        forsake(sys.stdout.fileno())
    return OPERATOR_ERROR


def _complain_group(group: BaseExceptionGroup[BaseException]) -> int:
    """A group is what a TaskGroup makes of errors that are known; anything else is a bug and shows itself."""
    mine, rest = group.split(
        lambda error: isinstance(error, SandreelError | BrokenPipeError) or _is_the_machines(error)
    )
    if mine is None or rest is not None:
        raise group
    error: BaseException = mine
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, SandreelError):
        return complain(error)
    if isinstance(error, OSError) and _is_the_machines(error):
        return _complain_of_machine(error)
    return BROKEN_PIPE


def _run(args: argparse.Namespace) -> int:
    result = args.run(args)
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    sys.stdout.flush()
    return int(result)


def _split(argv: list[str]) -> tuple[list[str], list[str] | None]:
    """What stands before the first `--`, and what behind it belongs to the job, untouched."""
    if "--" not in argv:
        return argv, None
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other mistake."""
        self.exit(OPERATOR_ERROR, f"{self.prog}: {message} (try `{self.prog} --help`)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sandreel",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sandreel {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, action=Commands)
    for name in _COMMANDS:
        importlib.import_module(f"sandreel_core.cli.{name}").add(subparsers)
    for point in sorted(entry_points(group=_GROUP), key=lambda point: point.name):
        try:
            add = point.load()
        except ImportError:
            continue  # its extra is not installed; `sandreel doctor` says so
        add(subparsers)
    return parser
