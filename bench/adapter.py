"""How fast an adapter reads: Claude's lines as agent events, beside bare decoding of the same lines."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from bench.figure import Figure
from bench.rig import Rig
from sandreel_bridge.adapters.table import ADAPTERS
from tests.support.recordings import RECORDINGS

_BLOCK_BYTES = 64 * 1024  # one read of a pipe
_ROUNDS = 9
_REPEATS = 20


async def adapter(rig: Rig) -> Figure:
    """Claude's lines as agent events; beside bare decoding of the same lines.

    All recordings of Claude Code one behind the other, `scale` times 20; the best of 9 rounds each, in turn.
    """
    once = b"".join(each.stdout for each in RECORDINGS if each.agent == "claude-code")
    data = once * max(1, int(_REPEATS * rig.scale))
    lines = data.splitlines()
    decode = msgspec.json.Decoder().decode

    def bare() -> None:
        for line in lines:
            decode(line)

    def ours() -> None:
        reader = ADAPTERS["claude-code"].reader()
        for begin in range(0, len(data), _BLOCK_BYTES):
            reader.feed(data[begin : begin + _BLOCK_BYTES], 1)

    rounds = [(_seconds(ours), _seconds(bare)) for _ in range(_ROUNDS)]
    return Figure(
        name="adapter, Claude lines",
        unit="lines/s",
        ours=len(lines) / min(each[0] for each in rounds),
        reference=len(lines) / min(each[1] for each in rounds),
        reference_name="msgspec.json.decode",
        target=0.5,
        higher_is_better=True,
        detail={"bytes/line": len(data) / len(lines)},
    )


def _seconds(run: Callable[[], None]) -> float:
    """Of this process: what others do on the machine is no part of a pure function."""
    began = time.process_time()
    run()
    return time.process_time() - began
