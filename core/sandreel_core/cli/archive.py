"""`sandreel archive`: move ended execs out of the stream, so that it never fills up."""

from __future__ import annotations

import argparse
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandreel_core.cli.connection import connect, data_of, dsn_of, options, settings
from sandreel_core.cli.duration import seconds
from sandreel_core.errors import Misconfigured, SandreelError

if TYPE_CHECKING:
    from sandreel_core.bus.port import Stored
    from sandreel_core.contract.cursor import Cursor

# Above this share of its byte limit a stream is archived whatever the age of what it holds, down to the lower one.
PRESSURE = 0.8
RELIEF = 0.6
# Entry points of this group are coroutine functions (dsn: str) -> list[Cursor]: how far the views that they keep
# have read each partition. They raise a SandreelError when that cannot be known.
READERS = "sandreel.readers"
_NOT_ASKED = "how far the views have read cannot be asked, and what they have not read would be missing in them"


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "archive",
        parents=[options(org=False)],
        help="move ended execs out of the stream to compressed files",
        description="Write ended execs to compressed files with a manifest, then purge them from the stream. What ended"
        " longer ago than --older-than goes always; when the stream is over 80 % of its limit the oldest go as well,"
        " until it is at 60 %. The end of each exec stays in the stream as a tombstone. What the views have not read yet"
        " stays as well.",
        allow_abbrev=False,
    )
    parser.add_argument("--older-than", type=seconds, metavar="AGE", help="7d, 12h, … (what CMD keeps: 7d)")
    parser.add_argument("--to", type=Path, metavar="DIR", help="where the files go (DATA/archive)")
    parser.add_argument("--all", action="store_true", help="every exec that has ended, whatever its age")
    parser.add_argument("--force", action="store_true", help="also what the views have not read: they will lack it")
    parser.set_defaults(run=run)


class Unread:
    """Execs whose end no view has read yet: purged, their lines would be missing there for good.

    `read_to`: the sequence up to which every view has read the partition; None: nobody reads, or nobody minds.
    """

    def __init__(self, read_to: int | None) -> None:
        self._read_to = read_to
        self.execs: set[str] = set()

    def __call__(self, subject: str, end: Stored) -> bool:
        if self._read_to is None or end.sequence <= self._read_to:
            return False
        self.execs.add(subject)
        return True


async def run(args: argparse.Namespace) -> int:
    """Raises Unavailable, Misconfigured."""
    from sandreel_core import clock
    from sandreel_core.archive import archive
    from sandreel_core.contract.subjects import reel
    from sandreel_core.json_line import json_text

    directory: Path = args.to or data_of(args) / "archive"
    async with connect(args, operator=True) as client:
        age_s = args.older_than or settings(args, operator=True).bus.cmd_max_age_s
        before_ns = None if args.all else int((clock.now().timestamp() - age_s) * 1e9)
        places = None if args.force else await _places(dsn_of(args))
        for partition in range(client.partitions):
            state = await client.bus.state(reel(partition))
            unread = Unread(None if places is None else _read_to(places, partition, state.epoch))
            try:
                written = await archive(client.bus, partition, directory, before_ns=before_ns, stays=unread)
                if state.max_bytes > 0 and (await client.bus.state(state.name)).bytes > PRESSURE * state.max_bytes:
                    relief = int(RELIEF * state.max_bytes)
                    written += await archive(client.bus, partition, directory, down_to_bytes=relief, stays=unread)
            except OSError as error:
                raise Misconfigured(f"the archive cannot be written to {directory}: {error.strerror}") from error
            after = await client.bus.state(state.name)
            fields = {
                "stream": state.name,
                "execs": sum(len(manifest.execs) for manifest in written),
                "files": [str(directory / state.name / manifest.file) for manifest in written],
                "file_bytes": sum(manifest.bytes for manifest in written),
                "stream_bytes_before": state.bytes,
                "stream_bytes_after": after.bytes,
                "unread_execs": len(unread.execs),
            }
            print(json_text(fields) if args.json else _sentence(fields), flush=True)
    return 0


def _sentence(fields: dict[str, Any]) -> str:
    unread = fields["unread_execs"]
    stay = f"; {unread} execs stay, the views have not read them yet (--force takes them)" if unread else ""
    if not fields["execs"]:
        return f"{fields['stream']}: nothing to archive ({fields['stream_bytes_before'] >> 20} MiB){stay}"
    return (
        f"{fields['stream']}: {fields['execs']} execs to {len(fields['files'])} files ({fields['file_bytes'] >> 10} KiB);"
        f" {fields['stream_bytes_before'] >> 20} MiB before, {fields['stream_bytes_after'] >> 20} MiB after{stay}"
    )


async def _places(dsn: str | None) -> list[Cursor] | None:
    """How far every reader of the log that keeps views has come; None where there are no views.

    Raises Misconfigured when they cannot be asked.
    """
    if dsn is None:
        return None
    points = list(entry_points(group=READERS))
    if not points:
        raise Misconfigured(f"{_NOT_ASKED}: pip install 'sandreel[projections]', or give --force")
    try:
        return [cursor for point in points for cursor in await point.load()(dsn)]
    except ImportError as error:
        raise Misconfigured(f"{_NOT_ASKED} ({error}): pip install 'sandreel[projections]', or give --force") from error
    except SandreelError as error:
        raise Misconfigured(f"{_NOT_ASKED} ({error}): start them, or give --force") from error


def _read_to(places: list[Cursor], partition: int, epoch: str) -> int:
    """0 where nothing of this stream has been read; a cursor of before a restore is one of another stream."""
    return min((at.sequence for at in places if (at.partition, at.epoch) == (partition, epoch)), default=0)
