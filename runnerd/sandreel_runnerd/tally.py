"""What of an exec's output is in its record, by stream. Pure."""

from __future__ import annotations

from sandreel_core.contract.exec import PROGRESS_BLOCKS, Output, Progress, Stream
from sandreel_core.exec import size_bytes


class Tally:
    """Counts blocks as they are recorded, which is not when they are read: two pipes are."""

    def __init__(self) -> None:
        self._blocks = 0
        self._lines: dict[Stream, int] = {}
        self._bytes: dict[Stream, int] = {}

    def add(self, block: Output) -> Progress | None:
        """What is to be recorded behind this block, if that is due."""
        self._blocks += 1
        self._lines[block.stream] = block.line - 1 + block.count
        self._bytes[block.stream] = self._bytes.get(block.stream, 0) + size_bytes(block)
        if self._blocks % PROGRESS_BLOCKS:
            return None
        return Progress(lines=dict(self._lines), bytes=dict(self._bytes))
