"""How a backup is told: one object for programs, lines for people, progress on a terminal."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandreel_core.backup.manifest import Manifest

_PROGRESS_EVERY_S = 0.2


def fields_of(manifest: Manifest, directory: Path) -> dict[str, Any]:
    """What `--json` says of a backup."""
    return {
        "directory": str(directory),
        "begun_at": manifest.begun_at,
        "ended_at": manifest.ended_at,
        "streams": [
            {
                "name": each.name,
                "epoch": each.epoch,
                "last_sequence": each.last_sequence,
                "last_at": each.last_at,
                "messages": each.messages,
                "file_bytes": each.file.bytes,
            }
            for each in manifest.streams
        ],
        "dump_bytes": manifest.dump.file.bytes if manifest.dump else None,
        "archive_files": len(manifest.archive),
    }


def lines_of(manifest: Manifest, verdict: str) -> list[str]:
    """The same for people, a line for each part; the verdict last."""
    lines = [
        f"{each.name:8} {each.messages:>12,} messages, up to {each.last_sequence:,}{f' ({each.last_at})' if each.last_at else ''},"
        f" {each.file.bytes / 2**20:,.1f} MiB"
        for each in manifest.streams
    ]
    views = f"{manifest.dump.file.bytes / 2**20:,.1f} MiB ({manifest.dump.program})" if manifest.dump else "not in it"
    lines.append(f"views    {views}")
    if manifest.archive:
        lines.append(f"archive  {len(manifest.archive)} files are needed beside it, and not in it")
    took_s = (manifest.ended_at - manifest.begun_at).total_seconds()
    return [*lines, f"{verdict}, taken {manifest.begun_at:%Y-%m-%d %H:%M:%S}Z in {took_s:.1f} s"]


def missing_line(missing: list[str], data: Path) -> str:
    """`missing`: files of the archive, at least one."""
    some = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
    return f"{len(missing)} files of the archive are not at {data / 'archive'}: {some}"


class Progress:
    """One line on a terminal's stderr, written over itself; silent elsewhere."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._shown_at = 0.0

    def __call__(self, stream: str, done_bytes: int) -> None:
        if sys.stderr.isatty() and time.monotonic() - self._shown_at > _PROGRESS_EVERY_S:
            self._shown_at = time.monotonic()
            print(
                f"\r{stream}: {done_bytes / 2**20:,.1f} MiB {self._verb}\x1b[K\r", end="", file=sys.stderr, flush=True
            )
