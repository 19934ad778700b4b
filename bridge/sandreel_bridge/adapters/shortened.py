"""An agent event that would be too large for one message, made smaller, and saying so. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from sandreel_core.contract.agent import AgentError, AgentEvent

# A message of the log has room for 1 MiB (NATS' default), and the envelope and its escapes need some of it.
MAX_EVENT_BYTES = 512 * 1024
# Characters that each string of an event keeps, tried in this order.
_KEPT = (64 * 1024, 4 * 1024, 256)
_encode = msgspec.json.Encoder().encode


def shortened(event: AgentEvent) -> AgentEvent:
    """The same event if it fits, else one whose long strings are cut and end in a remark; all of it stays in the exec's
    own output. One that is large without long strings becomes an `agent.error` that says so."""
    if (size := len(_encode(event))) <= MAX_EVENT_BYTES:
        return event
    fields = msgspec.structs.asdict(event)
    for kept in _KEPT:
        smaller = type(event)(**{name: _cut(value, kept) for name, value in fields.items()})
        if len(_encode(smaller)) <= MAX_EVENT_BYTES:
            return smaller
    return AgentError(
        source_n=event.source_n, message=f"{event.type} of {size} bytes was left out: the limit is {MAX_EVENT_BYTES}"
    )


def _cut(value: Any, kept: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= kept else f"{value[:kept]}… [shortened: {len(value)} characters]"
    if isinstance(value, list):
        return [_cut(one, kept) for one in value]
    if isinstance(value, dict):
        return {_cut(name, kept): _cut(one, kept) for name, one in value.items()}
    return value
