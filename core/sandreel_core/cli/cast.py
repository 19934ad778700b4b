"""`sandreel cast`: an exec as a file that plays in asciinema."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sandreel_core.cli.connection import connect, options
from sandreel_core.cli.duration import seconds
from sandreel_core.errors import Malformed, Misconfigured

if TYPE_CHECKING:
    from sandreel_core.asciicast import Asciicast
    from sandreel_core.client import Client

_OUT = 1
_DESCRIPTION = """\
Write what an exec did as an asciicast v3, with the times at which the stream stored it: output, changes of its
terminal's size, markers for input (how much; what was typed is not stored), and its exit status.

An exec that still runs is written up to now; with --live, until it ends. A file appears under its name when it is
whole. Ctrl-C ends a live recording early, and what there is of it is kept.
"""


class _Out(Protocol):
    async def write(self, lines: Sequence[str]) -> None: ...


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "cast",
        parents=[options()],
        help="an exec as an asciicast v3, to play in asciinema",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("session", metavar="SESSION")
    parser.add_argument("exec", metavar="EXEC")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write there instead of to standard output")
    parser.add_argument("-f", "--force", action="store_true", help="replace FILE if it is there")
    parser.add_argument("--live", action="store_true", help="go on until the exec ends")
    parser.add_argument("--idle-limit", type=seconds, metavar="TIME", help="players shorten longer pauses to this")
    parser.add_argument("--title", metavar="TEXT", help="the recording's title (org/session/exec)")
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Raises NotFound, Malformed, Misconfigured, Unavailable; BrokenPipeError when nobody reads any more."""
    import signal

    from sandreel_core.asciicast import Asciicast

    if args.output is not None and not args.force and _is_there(args.output):
        raise Malformed(f"{args.output} is there already; --force replaces it")
    async with connect(args) as client:
        await client.exec_info(args.org, args.session, args.exec)
        signals = {each.name: each.value for each in signal.Signals}
        title = args.title or f"{args.org}/{args.session}/{args.exec}"
        cast = Asciicast(title, signals=signals, idle_limit_s=args.idle_limit)
        if args.output is None:
            await _record(client, args, cast, _Pipe())
            return 0
        with _whole_file(args.output, force=args.force) as file:
            await _record(client, args, cast, file)
    if args.json:
        from sandreel_core.json_line import json_text

        said = {"file": str(args.output), "events": cast.events, "duration_s": cast.duration_s}
        print(json_text(said))
    else:
        print(f"{args.output}: {cast.events:,} events, {cast.duration_s:.1f} s", file=sys.stderr)
    return 0


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise Misconfigured(f"cannot write {path}: {error.strerror or error}") from error


async def _record(client: Client, args: argparse.Namespace, cast: Asciicast, out: _Out) -> None:
    import asyncio

    from sandreel_core.cli.interrupts import on_interrupt

    writing = asyncio.ensure_future(_write(client, args, cast, out))

    def pressed(_: int) -> None:
        writing.cancel()

    try:
        with on_interrupt(pressed):
            await asyncio.wait([writing])
    finally:
        writing.cancel()
    with suppress(asyncio.CancelledError):
        await writing  # not in a group: what goes wrong with the file is to be told by who opened it
    await out.write(cast.rest())


async def _write(client: Client, args: argparse.Namespace, cast: Asciicast, out: _Out) -> None:
    from sandreel_core.client.items import CaughtUp, Gap

    async with aclosing(client.follow(args.org, args.session, args.exec, live=args.live)) as items:
        async for item in items:
            if isinstance(item, Gap):
                await out.write(cast.missing(item.why))
            elif not isinstance(item, CaughtUp):
                await out.write(cast.take(item.event, item.stored_ns))


class _Pipe:
    """Standard output."""

    async def write(self, lines: Sequence[str]) -> None:
        from sandreel_core.cli.pipes import write_all

        if lines:
            await write_all(_OUT, ("\n".join(lines) + "\n").encode())


class _File:
    def __init__(self, fd: int) -> None:
        self._file = os.fdopen(fd, "w", encoding="utf-8", newline="\n")

    async def write(self, lines: Sequence[str]) -> None:
        self._file.writelines(f"{line}\n" for line in lines)
        self._file.flush()

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


@contextmanager
def _whole_file(path: Path, *, force: bool) -> Iterator[_File]:
    """A file beside it that gets its name when the block ends well, and is removed when it does not."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        file = _File(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except OSError as error:
        raise Misconfigured(f"cannot write beside {path}: {error.strerror}") from error
    try:
        yield file
        file.sync()
        if force:
            part.replace(path)
        else:
            os.link(part, path)
    except FileExistsError as error:
        raise Malformed(f"{path} is there already; --force replaces it") from error
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise Misconfigured(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        try:
            with suppress(OSError):  # it flushes once more, and the disk may be full
                file.close()
        finally:
            part.unlink(missing_ok=True)
