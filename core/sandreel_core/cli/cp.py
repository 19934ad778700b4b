"""`sandreel cp`: files and directories into a session and out of it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sandreel_core.cli.connection import connect, options
from sandreel_core.cli.text import is_utf8
from sandreel_core.errors import Malformed

if TYPE_CHECKING:
    from sandreel_core.cli.copying import Copying, Step

_DESCRIPTION = """\
Copy a file, or a directory with all that is in it, into a session's workspace or out of it.

  sandreel cp report.pdf s1:docs/         into a directory of the workspace
  sandreel cp s1:src ./out                a whole directory; into ./out if there is one, else as ./out
  sandreel cp s1:src/. ./out              only what is in it
  tar c . | sandreel cp - s1:all.tar      from stdin; to stdout with - as DST

Both sides take a SHA-256 of every file and compare; a file appears under its name when it is whole, or never. Links
and special files are left out, and it says so. At most 4 GiB a file. A path with a colon is local if it
begins with ./ or /.
"""
_REMOTE = re.compile(r"([A-Za-z0-9_-]{1,64}):(.*)", re.DOTALL)


class Place(NamedTuple):
    """`session` None: on this machine, `-` being stdin or stdout."""

    session: str | None
    path: str


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "cp",
        parents=[options()],
        help="copy files into a session or out of it",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SRC", help="PATH, SESSION:PATH, or - for stdin")
    parser.add_argument("target", metavar="DST", help="PATH, SESSION:PATH, or - for stdout")
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Raises Malformed, Refused, NotFound, Unavailable, Misconfigured."""
    from sandreel_core.cli.copying import Copying
    from sandreel_core.cli.progress import Progress

    source, target = place(args.source), place(args.target)
    session = source.session or target.session
    if session is None or (source.session and target.session):
        raise Malformed("one of SRC and DST is in a session, as SESSION:PATH, and the other one is not")
    progress = Progress(shown=not args.json)
    failed = False
    try:
        async with connect(args) as client:
            copying = Copying(client.files(args.org, session), session, progress)
            async with aclosing(_steps(copying, source, target)) as steps:
                async for step in steps:
                    progress.clear()
                    failed = tell(step, json=args.json, quiet=args.target == "-") or failed
    finally:
        progress.clear()
    return 2 if failed else 0


def place(text: str) -> Place:
    """`s1:dir/file`, or a path on this machine."""
    found = _REMOTE.fullmatch(text)
    if found and not is_utf8(found[2]):
        raise Malformed(f"{text!r} is not UTF-8, and in a session all names are")
    return Place(found[1], found[2]) if found else Place(None, text)


async def _steps(copying: Copying, source: Place, target: Place) -> AsyncGenerator[Step, None]:
    if source.session is None and source.path == "-":
        yield await copying.stdin_into(target.path)
    elif target.session is None and target.path == "-":
        yield await copying.out_to_stdout(source.path)
    else:
        within = copying.into(Path(source.path), target.path or ".") if target.session else None
        inside = target.path.endswith("/")  # which a Path forgets
        async with aclosing(within or copying.out(source.path, Path(target.path), into_directory=inside)) as steps:
            async for step in steps:
                yield step


def tell(step: Step, *, json: bool, quiet: bool) -> bool:
    """One line; whether it is that something should have been copied and was not. stdout is the file's if `quiet`."""
    import msgspec

    from sandreel_core.cli.copying import Left, Made
    from sandreel_core.cli.text import clean
    from sandreel_core.json_line import json_text

    failed = isinstance(step, Left) and step.failed
    if json:
        kind = {
            "type": "failed"
            if failed
            else "skipped"
            if isinstance(step, Left)
            else "made"
            if isinstance(step, Made)
            else "copied"
        }
        print(json_text(kind | msgspec.to_builtins(step)), file=sys.stderr if quiet else sys.stdout)
    elif isinstance(step, Left):
        verb = "was not copied" if step.failed else "is left out"
        print(f"sandreel: {clean(step.source)} {verb}: {clean(step.why)}", file=sys.stderr)
    return failed
