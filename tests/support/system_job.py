"""The chatty job of the system tests: what it prints it also keeps in files of its workspace, byte for byte.

It writes each piece to the file first and prints it then: so whatever was recorded of it is a prefix of the file.
It prints lines of every kind (short, 70 KB, not UTF-8, NUL, half a line at the end) on both streams until the
file `<name>.enough` appears, or it has printed enough by itself.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

STREAMS = ("stdout", "stderr")

_PROGRAM = r"""
import os, sys, time
name, wave, pause, limit, seed = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
def line(n):
    k = (n * 2654435761 + seed * 40503) % 65536
    body = b"%08d " % n + b"=" * (k % 90)
    if k % 31 == 0: body += b"\xff\xfe\xc3"
    if k % 211 == 0: body += b"\0"
    if k % 37 == 0: body += "\u00e9\u2713\U0001f600".encode()
    if k % 9973 == 0: body += b"L" * 70000
    return body + b"\n"
def put(fd, data):
    while data: data = data[os.write(fd, data):]
files = {fd: os.open(f"{name}.{stream}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644) for fd, stream in ((1, "stdout"), (2, "stderr"))}
def say(fd, data):
    put(files[fd], data)
    put(fd, data)
with open(f"{name}.runs", "ab") as runs: runs.write(b"run\n")
n = 0
while n < limit and not os.path.exists(f"{name}.enough"):
    say(1, b"".join(line(n + i) for i in range(wave)))
    if n // wave % 7 == 0: say(2, b"complaint %d\n" % n)
    n += wave
    if pause and not os.path.exists(f"{name}.faster"): time.sleep(pause)
say(1, b"the end, without a newline")
sys.exit(7)
"""
EXIT_CODE = 7
WAVE, PAUSE_S = 200, 0.02


@dataclass(frozen=True, slots=True)
class Job:
    """One run of it, as exec `id` of a session whose workspace is at `workspace` on this machine."""

    id: str
    session: str
    workspace: Path

    def printed(self, stream: str) -> bytes:
        """What it has printed so far (or is just about to)."""
        try:
            return (self.workspace / f"{self.id}.{stream}").read_bytes()
        except FileNotFoundError:
            return b""

    def printed_bytes(self) -> int:
        """How much that is, on both streams."""
        paths = [self.workspace / f"{self.id}.{stream}" for stream in STREAMS]
        return sum(path.stat().st_size for path in paths if path.exists())

    def runs(self) -> int:
        """How often it was really run."""
        try:
            return (self.workspace / f"{self.id}.runs").read_bytes().count(b"run\n")
        except FileNotFoundError:
            return 0

    def faster(self) -> None:
        """Let it make no pauses any more."""
        (self.workspace / f"{self.id}.faster").touch()

    def enough(self) -> None:
        """Let it end by itself."""
        (self.workspace / f"{self.id}.enough").touch()


def argv(name: str, *, wave: int = WAVE, pause_s: float = PAUSE_S, limit: int = 10_000_000, seed: int = 1) -> list[str]:
    """The command line: `wave` lines at once, then a pause, until there are `limit` of them."""
    return [sys.executable, "-I", "-S", "-c", _PROGRAM, name, str(wave), str(pause_s), str(limit), str(seed)]
