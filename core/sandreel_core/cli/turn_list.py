"""`sandreel turn list`: the newest turns, a line each."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, TypeAlias

from sandreel_core.cli.connection import connect

if TYPE_CHECKING:
    from sandreel_core.client import TurnInfo

# As `Client.costs` tells them: what the gateway has counted, which of a turn that runs is what it costs so far.
Costs: TypeAlias = "dict[tuple[str, str], int | None]"


async def listed(args: argparse.Namespace) -> int:
    """Raises Malformed, Unavailable, Misconfigured."""
    from sandreel_core.cli.text import table
    from sandreel_core.json_line import json_text

    async with connect(args) as client:
        found = await client.turns(args.org, args.session, limit=args.limit)
        costs = await client.costs(found)
    if args.json:
        for info in found:
            print(json_text(_fields(info, costs)))
        return 0
    rows = [("TURN", "SESSION", "AGENT", "STATE", "ASKED", "TOOK", "COST", "PROMPT")]
    print("\n".join(table([*rows, *(_row(info, costs) for info in found)])))
    return 0


def _row(info: TurnInfo, costs: Costs) -> tuple[str, ...]:
    from datetime import datetime

    from sandreel_core.cli.text import clean, cut, duration
    from sandreel_core.cli.usage_table import dollars

    asked = info.requested
    at = datetime.fromtimestamp(info.asked_ns / 1e9).astimezone()
    took = duration((info.ended_ns - info.asked_ns) / 1e9) if info.ended_ns is not None else ""
    where = (info.session, info.turn)
    cost = dollars(costs[where]) if where in costs else ""
    prompt = clean(" ".join((asked.prompt or "").split())) if asked is not None else ""
    agent = clean(asked.agent) if asked is not None else "?"
    state = f"{info.state}{_decision(info)}"
    return (info.turn, info.session, agent, state, at.strftime("%Y-%m-%d %H:%M:%S"), took, cost, cut(prompt, 40))


def _decision(info: TurnInfo) -> str:
    from sandreel_core.contract.turn import PlanApproved

    if info.decided is None:
        return ""
    return " (approved)" if isinstance(info.decided, PlanApproved) else " (rejected)"


def _fields(info: TurnInfo, costs: Costs) -> dict[str, Any]:
    import msgspec

    fields: dict[str, Any] = {"org": info.org, "session": info.session, "turn": info.turn, "state": info.state}
    for name, part in (("requested", info.requested), ("ended", info.ended), ("decided", info.decided)):
        if part is not None:
            fields[name] = msgspec.to_builtins(part)
    where = (info.session, info.turn)
    fields |= {"cost_micro_usd": costs[where]} if where in costs else {}
    return fields | {"cursor": str(info.cursor)}
