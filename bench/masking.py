"""What masking costs: a chatty child in a session that was given 20 secrets, beside the same one in a session that was given none."""

from __future__ import annotations

import secrets
import time
from base64 import b64encode

from bench.figure import Figure, median
from bench.rig import ORG, Rig
from sandreel_runnerd.forms import forms
from sandreel_runnerd.lines import READ_BYTES, Lines
from sandreel_runnerd.mask import Mask
from sandreel_runnerd.masked import MaskedLines
from tests.support.lender import lease, lends

LINES = 1_000_000
ROUNDS = 3
SECRETS = 20
_BLOCKS = 20
_BLOCK_ROUNDS = 400


async def masking(rig: Rig) -> list[Figure]:
    """Output with 20 secrets to mask, and with none; beside output without a mask.

    The rates of the whole way to the log, in turn; and the block builder alone, when nothing was leased.
    """
    lines = rig.lines(LINES)
    values = {f"secret{number}": b64encode(secrets.token_bytes(30)).decode() for number in range(SECRETS)}
    plain, masked = await rig.session("plain"), await rig.session("masked")
    ours: list[float] = []
    reference: list[float] = []
    async with lends(rig.stack, rig.client, values), rig.without("projector"):
        handle = await rig.client.exec(ORG, masked, ["env"], secret_env=lease(*values))
        shown = (await handle.collect()).stdout
        assert not any(value.encode() in shown for value in values.values())
        for _ in range(rig.rounds(ROUNDS)):
            for session, rates in ((masked, ours), (plain, reference)):
                began, ended = await rig.ended(await rig.start(session, lines))
                rates.append(lines / ((ended - began) / 1e9))
    return [
        Figure(
            name=f"masking {SECRETS} secrets in all forms",
            unit="lines/s",
            ours=median(ours),
            target=0.5,
            reference=median(reference),
            reference_name="the same, no secret leased",
            higher_is_better=True,
            detail={"forms": float(sum(len(forms(value.encode())) for value in values.values()))},
        ),
        _nothing_leased(),
    ]


def _nothing_leased() -> Figure:
    """Blocks of one read, by the thread's own CPU time: the best of many short rounds each, in turn, since a cache that others
    have emptied, or a clock that is turned down, costs more than what is looked for."""
    block = (b"%099d\n" % 7) * (READ_BYTES // 100)

    def cpu_s(lines: Lines | MaskedLines) -> float:
        feed = lines.feed
        began = time.thread_time()
        for _ in range(_BLOCKS):
            feed(block, 0.0)
        return time.thread_time() - began

    masked, bare = MaskedLines(Lines("stdout"), Mask()), Lines("stdout")
    rounds = [(cpu_s(masked), cpu_s(bare)) for _ in range(_BLOCK_ROUNDS)]
    ours, without = (_BLOCKS * len(block) / min(column) / 1e6 for column in zip(*rounds, strict=True))
    return Figure("blocks, no secret leased", "MB/s", ours, 0.95, without, "without a mask", higher_is_better=True)
