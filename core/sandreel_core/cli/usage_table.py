"""What a turn used, as a table: by model, as the gateway counted, else as the agent says. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from sandreel_core.cli.text import clean
from sandreel_core.client.turn_items import ModelUse
from sandreel_core.contract.turn import Usage
from sandreel_core.turn import summed

_HEAD = ("model", "calls", "input", "cached", "output", "cost")


def usage_table(models: Sequence[ModelUse], said: Usage) -> list[str]:
    """Lines; none where nothing was used. `said`: the turn's own total, for a turn whose calls no gateway has told of."""
    rows = [_row(each.model, str(each.calls), each.usage) for each in models]
    if len(models) > 1:
        rows.append(_row("in all", str(sum(each.calls for each in models)), summed(each.usage for each in models)))
    if not rows:
        if not (said.input_tokens or said.output_tokens):
            return []
        rows = [_row("as the agent says", "", said)]
    refused = sum(each.refused for each in models)
    widths = [max(len(row[column]) for row in [_HEAD, *rows]) for column in range(len(_HEAD))]
    lines = ["  ".join(_cell(row, column, widths) for column in range(len(_HEAD))).rstrip() for row in [_HEAD, *rows]]
    return [*lines, f"{refused} of the calls failed"] if refused else lines


def dollars(micro_usd: int | None) -> str:
    """To a hundredth of a cent, which is what a small turn costs; an unknown price is none."""
    if micro_usd is None:
        return "price not known"
    return f"${micro_usd / 1e6:,.2f}" if micro_usd >= 1_000_000 else f"${micro_usd / 1e6:.4f}"


def tokens(count: int) -> str:
    """For eyes: `840`, `12.3k`, `1.2M`."""
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e3:.1f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"


def _row(name: str, calls: str, usage: Usage) -> tuple[str, ...]:
    counts = (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens)
    return (clean(name), calls, *(f"{count:,}" for count in counts), dollars(usage.cost_micro_usd))


def _cell(row: tuple[str, ...], column: int, widths: Sequence[int]) -> str:
    return row[column].rjust(widths[column]) if column else row[column].ljust(widths[column])
