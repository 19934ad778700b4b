"""`sandreel` as a user types it: a process of its own, with no settings but what it is given."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SANDREEL = (sys.executable, "-P", "-m", "sandreel_core.cli")
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("SANDREEL_")}


@dataclass(frozen=True)
class Done:
    code: int
    out: bytes
    err: str

    @property
    def said(self) -> str:
        """Everything that it printed, errors last."""
        return self.out.decode() + self.err

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def argv(data: Path | None, *words: str) -> list[str]:
    """With `--data` (None: without it) among its own words, before those of a job."""
    at = words.index("--") if "--" in words else len(words)
    where = () if data is None else ("--data", str(data))
    return [*SANDREEL, *words[:at], *where, *words[at:]]


async def started(
    data: Path | None,
    *words: str,
    stdin: int = asyncio.subprocess.DEVNULL,
    environ: Mapping[str, str] = ENVIRON,
    cwd: Path | None = None,
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *argv(data, *words),
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ,
        cwd=cwd,
    )


async def ended(process: asyncio.subprocess.Process, stdin: bytes | None = None, *, timeout_s: float = 90) -> Done:
    """What it printed, when it has ended."""
    async with asyncio.timeout(timeout_s):
        out, err = await process.communicate(stdin)
    return Done(process.returncode or 0, out, err.decode())


async def sandreel(
    data: Path | None,
    *words: str,
    stdin: bytes | None = None,
    environ: Mapping[str, str] = ENVIRON,
    cwd: Path | None = None,
    timeout_s: float = 90,
) -> Done:
    source = asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE
    return await ended(await started(data, *words, stdin=source, environ=environ, cwd=cwd), stdin, timeout_s=timeout_s)
