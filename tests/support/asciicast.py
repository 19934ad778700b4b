"""A strict reader of asciicast v3, from its specification and from nothing of ours
(https://docs.asciinema.org/manual/asciicast/v3)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_HEADER: dict[str, type | tuple[type, ...]] = {
    "version": int,
    "term": dict,
    "timestamp": int,
    "idle_time_limit": (int, float),
    "command": str,
    "title": str,
    "env": dict,
    "tags": list,
}
_TERM: dict[str, type] = {"cols": int, "rows": int, "type": str, "version": str, "theme": dict}
_DATA = {"o": r".*", "i": r".*", "m": r".*", "r": r"[1-9][0-9]*x[1-9][0-9]*", "x": r"[0-9]+"}


@dataclass(frozen=True)
class Event:
    """`at_s` is since the beginning: the sum of the intervals."""

    at_s: float
    code: str
    data: str


@dataclass(frozen=True)
class Recording:
    header: dict[str, Any]
    events: list[Event]

    @property
    def output(self) -> str:
        return "".join(event.data for event in self.events if event.code == "o")

    def of(self, code: str) -> list[str]:
        return [event.data for event in self.events if event.code == code]


def parse(text: str) -> Recording:
    """Raises AssertionError with what is not as the specification says."""
    assert text.endswith("\n"), "the last line is not whole"
    first, *rest = text[:-1].split("\n")
    header = json.loads(first)
    assert isinstance(header, dict)
    for name, value in header.items():
        assert name in _HEADER, f"unknown header attribute {name}"
        assert isinstance(value, _HEADER[name]), f"{name} is {value!r}"
    assert header["version"] == 3
    term = header["term"]
    assert term["cols"] > 0
    assert term["rows"] > 0
    for name, value in term.items():
        assert isinstance(value, _TERM[name]), f"term.{name} is {value!r}"
    events: list[Event] = []
    at_s = 0.0
    for line in rest:
        if line.startswith("#"):
            continue
        interval, code, data = json.loads(line)
        assert isinstance(interval, int | float)
        assert interval >= 0
        assert re.fullmatch(_DATA[code], data, re.DOTALL), f"{data!r} is no data of {code!r}"
        assert not events or events[-1].code != "x", "something follows the exit"
        at_s += interval
        events.append(Event(at_s, code, data))
    return Recording(header, events)
