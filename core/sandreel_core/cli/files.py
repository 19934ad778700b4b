"""`sandreel files`: look into a session's workspace, and change it."""

from __future__ import annotations

import argparse
import sys
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.connection import connect, options

if TYPE_CHECKING:
    from sandreel_core.contract.files import FileEntry

_DESCRIPTION = """\
Files of a session's workspace, while it is ready. A PATH is relative to the workspace; none leads out of it. What is
written or removed is an event in the log, what is read is not. Whole directories: `sandreel cp`.
"""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "files",
        help="list, show, write and remove files of a session",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, run, path, about in (
        ("ls", _ls, "PATH", "list a directory (the workspace unless PATH is given)"),
        ("cat", _cat, "PATH", "write a file to stdout, byte for byte"),
        ("write", _write, "PATH", "put stdin into a file, which appears when it is whole"),
        ("rm", _rm, "PATH", "remove files, links and empty directories"),
    ):
        verb = verbs.add_parser(name, parents=[options()], help=about, description=about, allow_abbrev=False)
        verb.add_argument("session", metavar="SESSION")
        if name == "ls":
            verb.add_argument("path", metavar=path, nargs="?", default=".")
        elif name == "rm":
            verb.add_argument("path", metavar=path, nargs="+")
        else:
            verb.add_argument("path", metavar=path)
        if name == "write":
            verb.add_argument("--mode", type=_mode, default=0o644, metavar="OCTAL", help="its permissions (644)")
        verb.set_defaults(run=run)


async def _ls(args: argparse.Namespace) -> int:
    """Raises NotFound, Refused (UNSAFE_PATH, NOT_A_DIRECTORY, …), Unavailable, Misconfigured."""
    from sandreel_core.json_line import json_text

    async with connect(args) as client, aclosing(client.files(args.org, args.session).entries(args.path)) as entries:
        async for entry in entries:
            print(json_text(entry) if args.json else _line(entry))
    return 0


def _line(entry: FileEntry) -> str:
    from sandreel_core.cli.text import clean

    kind = {"file": "-", "dir": "d", "other": "?"}[entry.kind]
    mode = f"{entry.mode:03o}" if entry.mode is not None else "   "
    at = datetime.fromtimestamp(entry.modified_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return f"{kind} {mode}  {entry.size:>12}  {at}  {clean(entry.name)}{'/' if entry.kind == 'dir' else ''}"


async def _cat(args: argparse.Namespace) -> int:
    """Raises what `_ls` does; CHECKSUM and CHANGED when all has been written already: the exit code says so."""
    from sandreel_core.cli.pipes import write_all

    async with connect(args) as client:
        download = await client.files(args.org, args.session).open(args.path)
        async with aclosing(download.pieces()) as pieces:
            if args.json:
                await _cat_json(args, pieces)
                return 0
            async for piece in pieces:
                await write_all(1, piece)
    return 0


async def _cat_json(args: argparse.Namespace, pieces: Any) -> None:
    """An object a piece: a line of text could end in the middle of a character."""
    import base64

    from sandreel_core.json_line import json_text

    offset = 0
    async for piece in pieces:
        fields = {"path": args.path, "offset": offset, "base64": base64.b64encode(piece).decode()}
        print(json_text(fields))
        offset += len(piece)


async def _write(args: argparse.Namespace) -> int:
    from sandreel_core.cli.pipes import read_chunks
    from sandreel_core.json_line import json_text

    async with connect(args) as client, aclosing(read_chunks(0)) as data:
        stored = await client.files(args.org, args.session).write(args.path, data, mode=args.mode)
    if args.json:
        fields = {"path": args.path, "size": stored.size, "sha256": stored.sha256}
        print(json_text(fields))
    return 0


async def _rm(args: argparse.Namespace) -> int:
    """All that can be; 2 when one could not."""
    from sandreel_core.cli.text import clean
    from sandreel_core.errors import NotFound, Refused
    from sandreel_core.json_line import json_text

    code = 0
    async with connect(args) as client:
        files = client.files(args.org, args.session)
        for path in args.path:
            try:
                await files.delete(path)
            except (Refused, NotFound) as error:
                print(f"sandreel: {clean(path)} was not removed: {clean(str(error))}", file=sys.stderr)
                code = 2
            else:
                if args.json:
                    print(json_text({"type": "removed", "path": path}))
    return code


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise argparse.ArgumentTypeError(f"{text!r} is no permission like 644 or 755")
    return mode
