"""Recordings of the real agent programs (`tests/bridge/recordings`): what they printed, and how they ended."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from sandreel_bridge.adapters.reader import Reader
from sandreel_bridge.adapters.table import ADAPTERS
from sandreel_core.agent import AgentItem
from sandreel_core.contract.turn import Usage

HOME = Path(__file__).parent.parent / "bridge" / "recordings"


class Recording(NamedTuple):
    agent: str
    name: str

    @property
    def stdout(self) -> bytes:
        return _read(HOME / self.agent / f"{self.name}.jsonl")

    @property
    def exit_code(self) -> int | None:
        """None after a signal."""
        code: int = json.loads(_read(HOME / self.agent / "exits.json"))[self.name]
        return code if code >= 0 else None

    def reader(self) -> Reader:
        """Of a conversation that began with this run."""
        return ADAPTERS[self.agent].reader(Usage())

    def items(self, cuts: Iterable[int] = ()) -> list[AgentItem]:
        """All of it, read in pieces that end at these places."""
        reader = self.reader()
        return [item for piece in self.pieces(cuts) for item in reader.feed(piece, 1)] + reader.end(1, self.exit_code)

    def pieces(self, cuts: Iterable[int]) -> list[bytes]:
        data = self.stdout
        places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        return [data[begin:end] for begin, end in pairwise(places)]


@cache
def _read(path: Path) -> bytes:
    return path.read_bytes()


RECORDINGS = [
    Recording(agent.name, path.stem) for agent in sorted(HOME.iterdir()) for path in sorted(agent.glob("*.jsonl"))
]
