"""`sandreel archive`: move ended execs out of the stream, so that it never fills up."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sandreel_core.cli.connection import connect, data_of, options, settings
from sandreel_core.cli.duration import seconds

# Above this share of its byte limit a stream is archived whatever the age of what it holds, down to the lower one.
PRESSURE = 0.8
RELIEF = 0.6


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "archive",
        parents=[options(org=False)],
        help="move ended execs out of the stream to compressed files",
        description="Write ended execs to compressed files with a manifest, then purge them from the stream. What ended"
        " longer ago than --older-than goes always; when the stream is over 80 % of its limit the oldest go as well,"
        " until it is at 60 %. The end of each exec stays in the stream as a tombstone.",
        allow_abbrev=False,
    )
    parser.add_argument("--older-than", type=seconds, metavar="AGE", help="7d, 12h, … (what CMD keeps: 7d)")
    parser.add_argument("--to", type=Path, metavar="DIR", help="where the files go (DATA/archive)")
    parser.add_argument("--all", action="store_true", help="every exec that has ended, whatever its age")
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Raises Unavailable, Misconfigured."""
    from sandreel_core import clock
    from sandreel_core.archive import archive
    from sandreel_core.cli.screen import Screen
    from sandreel_core.contract.subjects import reel
    from sandreel_core.errors import Misconfigured

    directory: Path = args.to or data_of(args) / "archive"
    screen = Screen(json=args.json)
    async with connect(args, operator=True) as client:
        age_s = args.older_than or settings(args, operator=True).bus.cmd_max_age_s
        before_ns = None if args.all else int((clock.now().timestamp() - age_s) * 1e9)
        for partition in range(client.partitions):
            state = await client.bus.state(reel(partition))
            try:
                written = await archive(client.bus, partition, directory, before_ns=before_ns)
                if state.max_bytes > 0 and (await client.bus.state(state.name)).bytes > PRESSURE * state.max_bytes:
                    written += await archive(
                        client.bus, partition, directory, down_to_bytes=int(RELIEF * state.max_bytes)
                    )
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
            }
            if args.json:
                await screen.line(fields)
            else:
                print(_sentence(fields))
    return 0


def _sentence(fields: dict[str, Any]) -> str:
    if not fields["execs"]:
        return f"{fields['stream']}: nothing to archive ({fields['stream_bytes_before'] >> 20} MiB)"
    return (
        f"{fields['stream']}: {fields['execs']} execs to {len(fields['files'])} files ({fields['file_bytes'] >> 10} KiB);"
        f" {fields['stream_bytes_before'] >> 20} MiB before, {fields['stream_bytes_after'] >> 20} MiB after"
    )
