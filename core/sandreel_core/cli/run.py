"""`sandreel run --rm`: a job in a session of its own, which is gone afterwards."""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sandreel_core.cli.connection import connect, options
from sandreel_core.cli.duration import seconds, variable
from sandreel_core.errors import Malformed, Misconfigured, NotFound, Refused, Unavailable

if TYPE_CHECKING:
    from sandreel_core.cli.copying import Copying
    from sandreel_core.client import Client, OneShot

_DESCRIPTION = """\
Make a session, copy files into it, run one job and stream what it prints, copy files out of it, and destroy it: however
the job ends, also by Ctrl-C (once: it gets SIGINT; twice: it ends with its session), a time-out or a lost recorder.

  sandreel run --rm -- python3 -c 'print(6 * 7)'
  sandreel run --rm --in job.py:job.py --out out/plot.png:plot.png -- python3 job.py

It ends with the job's exit code; with 2 when the job's was 0 and a file did not come out. At most 50 files each way,
50 MiB a file and 100 MiB in all out; PATH is relative to the workspace, up to 200 letters, digits, '.', '_', '-' and '/'.
If this process is killed outright, the session is stopped after 5 minutes and kept: `sandreel session ls` shows it as
owned by once:ID, `sandreel session destroy` removes it.
"""


class Pair(NamedTuple):
    """A file here, and in the workspace."""

    local: str
    path: str


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "run",
        parents=[options()],
        help="run a job in a session of its own, which is destroyed afterwards",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="sandreel run --rm [options] -- CMD [ARG ...]\n       sandreel run --rm [options] --shell TEXT",
        allow_abbrev=False,
    )
    parser.add_argument("--rm", action="store_true", help="destroy the session afterwards; has to be given")
    parser.add_argument("--shell", metavar="TEXT", help="run this with `bash -lc` instead of CMD")
    parser.add_argument("--profile", choices=("default", "agent"), default="default")
    parser.add_argument("--image", metavar="IMAGE", help="for backends that have images")
    parser.add_argument("--cwd", metavar="PATH", help="below the workspace; must exist")
    parser.add_argument("-e", "--env", type=variable, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--in", dest="inputs", action="append", default=[], metavar="LOCAL:PATH", help="a file in")
    parser.add_argument("--out", dest="outputs", action="append", default=[], metavar="PATH:LOCAL", help="a file out")
    parser.add_argument("--timeout", type=seconds, default=30.0, metavar="TIME", help="of the job (30s, at most 5m)")
    parser.add_argument("--no-stdin", action="store_true", help="the job reads nothing, whatever is piped in here")
    parser.set_defaults(run=run, takes_rest=True)


async def run(args: argparse.Namespace) -> int:
    """Raises Malformed, Refused, Unavailable, Misconfigured."""
    from sandreel_core.cli.interrupts import Ending

    if not args.rm:
        raise Malformed("give --rm: the session is destroyed afterwards; one that stays is made by `session create`")
    if (args.shell is None) is not bool(args.rest):
        raise Malformed("give the job after --, or as --shell TEXT: sandreel run --rm -- CMD [ARG ...]")
    inputs, outputs = _pairs(args)
    ending = Ending()
    ending.arm()
    try:
        async with connect(args) as client:
            return await _in_session(client, args, inputs, outputs, ending)
    except asyncio.CancelledError:
        if ending.came is None:
            raise
        return 128 + ending.came


def _pairs(args: argparse.Namespace) -> tuple[list[Pair], list[Pair]]:
    """What goes in and what comes out, judged before anything is made."""
    from sandreel_core.client.once import check_paths, check_timeout

    inputs, outputs = [], []
    for text in args.inputs:
        local, colon, path = text.rpartition(":")
        if not (colon and local and path):
            raise Malformed(f"--in {text!r} is not LOCAL:PATH")
        if not Path(local).is_file():
            raise Misconfigured(f"--in {text!r}: {local!r} is not a file")
        inputs.append(Pair(local, path))
    for text in args.outputs:
        path, colon, local = text.partition(":")
        if not (colon and local and path):
            raise Malformed(f"--out {text!r} is not PATH:LOCAL")
        outputs.append(Pair(local, path))
    for name, pairs in (("--in", inputs), ("--out", outputs)):
        try:
            check_paths([pair.path for pair in pairs])
        except Refused as refused:
            raise Malformed(f"{name}: {refused.message}") from refused
    try:
        check_timeout(args.timeout)
    except Refused as refused:
        raise Malformed(f"--timeout: {refused.message}") from refused
    return inputs, outputs


async def _in_session(
    client: Client, args: argparse.Namespace, inputs: list[Pair], outputs: list[Pair], ending: Any
) -> int:
    from sandreel_core.cli.copying import Copying
    from sandreel_core.cli.exec import piped_in
    from sandreel_core.cli.job import Job
    from sandreel_core.cli.pipes import STDIN
    from sandreel_core.cli.progress import Progress
    from sandreel_core.contract.exec import Exited

    shot: OneShot | None = None
    progress = Progress(shown=not args.json)
    initial, piped = (b"", False) if args.no_stdin else piped_in(terminal=False)
    try:
        async with client.one_shot(args.org, profile=args.profile, image=args.image) as shot:
            copying = Copying(shot.files, shot.session, progress)
            for pair in inputs:
                await _copy_in(copying, pair, args)
            progress.clear()
            handle = await shot.start(
                args.rest or None,
                shell=args.shell,
                cwd=args.cwd,
                env=dict(args.env),
                stdin=initial,
                hold_stdin=piped,
                timeout_s=args.timeout,
            )
            job = Job(handle, shot.session, json=args.json, lasting=False)
            code = await job.watch(stdin=STDIN if piped else None, interruptible=True)
            ending.arm()
            if isinstance(job.end, Exited):
                came = [await _copy_out(shot, copying, pair, args) for pair in outputs]
                code = code or (0 if all(came) else 2)
            return code
    finally:
        progress.clear()
        if shot is not None and shot.left is not None:
            mend = f"sandreel session destroy {shot.session}"
            print(f"sandreel: session {shot.session} may still be there ({shot.left}): {mend}", file=sys.stderr)


async def _copy_in(copying: Copying, pair: Pair, args: argparse.Namespace) -> None:
    from sandreel_core.cli.cp import tell

    async with aclosing(copying.into(Path(pair.local), pair.path)) as steps:
        async for step in steps:
            tell(step, json=args.json, quiet=False)


async def _copy_out(shot: OneShot, copying: Copying, pair: Pair, args: argparse.Namespace) -> bool:
    """Whether it came; a line says why not."""
    from sandreel_core.cli.copying import Left, Step
    from sandreel_core.cli.cp import tell

    async def steps() -> list[Step]:
        if await shot.files.kind(pair.path) == "dir":
            return [Left(pair.path, "it is a directory, and only files come out", failed=True)]
        inside = pair.local.endswith("/")
        async with aclosing(copying.out(pair.path, Path(pair.local), into_directory=inside)) as found:
            return [step async for step in found]

    try:
        made = await steps()
    except (Refused, NotFound, Misconfigured, Unavailable) as error:
        made = [Left(pair.path, str(error), failed=True)]
    failed = [tell(step, json=args.json, quiet=False) for step in made]
    return not any(failed)
