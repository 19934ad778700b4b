"""Rebuilds of the views while everything else of a soak goes on: some are killed, and the next goes on with what is there."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.support.system import Site

# Between two rebuilds, at most; and how long one may run before it is killed: on a busy machine it takes ten seconds until
# there is something to go on with, and while Postgres is killed every few seconds some would never come to their end.
PAUSE_S = 1.0
KILLED_AFTER_S = (2.0, 45.0)
# Servers are away for seconds at a time; the command itself waits for them for a minute.
WITHIN_S = 240.0
_SWAPPED, _DIFFERS = 0, 1


class Rebuilds:
    """`counts` is what was done; `wrong` is told what must never be."""

    def __init__(self, site: Site, seed: int, counts: Counter[str], wrong: Callable[[str], None]) -> None:
        self._site = site
        self._dice = random.Random(f"{seed} rebuilds")
        self._counts = counts
        self._wrong = wrong

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(self._dice.uniform(0, PAUSE_S))
            await self._one(self._dice.uniform(*KILLED_AFTER_S))

    async def last(self) -> None:
        """With nobody killed any more: it is swapped, and nothing differs."""
        code, told = await self._command("rebuild", limit_s=None)
        if code != _SWAPPED:
            self._wrong(f"the last rebuild ended with {code}: {told[-3:]}")
        self._note(code, told)

    async def _one(self, limit_s: float) -> None:
        code, told = await self._command("rebuild", limit_s=limit_s)
        self._note(code, told)
        if code == _DIFFERS:
            self._wrong(f"a rebuild found what differs: {[each for each in told if each['event'] == 'difference'][:5]}")
        if code == _SWAPPED:
            await self._command("drop-old", limit_s=None)

    def _note(self, code: int | None, told: list[dict[str, Any]]) -> None:
        names = {_SWAPPED: "rebuilds swapped", _DIFFERS: "rebuilds that differed", None: "rebuilds killed"}
        self._counts[names.get(code, "rebuilds given up")] += 1
        for event, what in (("begins", "rebuilds begun"), ("goes_on", "rebuilds gone on with")):
            self._counts[what] += any(each["event"] == event for each in told)

    async def _command(self, *words: str, limit_s: float | None) -> tuple[int | None, list[dict[str, Any]]]:
        """The exit code, None where it was killed; and what it said."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SANDREEL_")}
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "sandreel_core.cli",
                "projections",
                *words,
                "--json",
                "--data",
                str(self._site.data),
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
        )
        talking = asyncio.ensure_future(process.communicate())
        try:
            done, _ = await asyncio.wait([talking], timeout=limit_s or WITHIN_S)
            if not done and limit_s is None:
                self._wrong(f"{words[0]} took longer than {WITHIN_S:g} s")
        finally:
            if process.returncode is None:
                process.kill()
            out, said = await talking
        if "Traceback" in said.decode():
            self._wrong(f"{words[0]} ended with a traceback: {said.decode()[-500:]}")
        told = [json.loads(line) for line in out.splitlines() if line.endswith(b"}")]
        return (process.returncode if done else None), told
