"""The numbers of one process, and the text in which Prometheus reads them. Pure: who measures brings the seconds.

Names, units and help are data (`Family`), so that `docs/metrics.md` is generated from what is served. Labels never
hold an id of an org, a session or an exec; docs/decisions/0014 says why this is no library.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Series of one family; what comes beyond them counts under `other`. As many as an installation may have partitions
# (settings.py), with room for the streams beside them.
MAX_SERIES = 4200
OTHER = "other"
# From a quick append on a quiet disk (measurements.md: about 1 ms) to the time-outs of a command.
LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


class Family(Struct, frozen=True):
    """What is measured. Raises ValueError for a name, a label or buckets that Prometheus' conventions do not allow.

    buckets  upper bounds, ascending, of a histogram; the one without a bound is added
    """

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    buckets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not all(_NAME.match(name) for name in (self.name, *self.labels)) or "le" in self.labels:
            raise ValueError(f"{self.name}{self.labels}: not a name")
        if (self.kind == "counter") != self.name.endswith("_total"):
            raise ValueError(f"{self.name}: counters, and they alone, end with _total")
        if (self.kind == "histogram") != bool(self.buckets) or list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError(f"{self.name}: histograms, and they alone, have ascending buckets")
        if not self.help:
            raise ValueError(f"{self.name}: has no help")


class Instrument(ABC):
    """The series of one family. One without labels is there from the beginning, with 0."""

    def __init__(self, family: Family) -> None:
        self.family = family

    @abstractmethod
    def lines(self) -> list[str]:
        """One line of the exposition format for each series."""


class Counter(Instrument):
    def __init__(self, family: Family) -> None:
        super().__init__(family)
        self._values: dict[Labels, float] = {} if family.labels else {(): 0}

    def add(self, *labels: str, by: float = 1) -> None:
        key = _room(self._values, labels)
        self._values[key] = self._values.get(key, 0) + by

    def total(self, *labels: str) -> float:
        """What was counted so far; 0 for what was never."""
        return self._values.get(labels, 0)

    def lines(self) -> list[str]:
        return _lines(self.family, self._values)


class Gauge(Instrument):
    def __init__(self, family: Family) -> None:
        super().__init__(family)
        self._values: dict[Labels, float] = {} if family.labels else {(): 0}

    def set(self, value: float, *labels: str) -> None:
        self._values[_room(self._values, labels)] = value

    def replace(self, values: Mapping[Labels, float]) -> None:
        """Exactly these series from now on: what is not named any more is gone."""
        self._values = {}
        for labels, value in values.items():
            self.set(value, *labels)

    def lines(self) -> list[str]:
        return _lines(self.family, self._values)


class Histogram(Instrument):
    def __init__(self, family: Family) -> None:
        super().__init__(family)
        self._buckets = [0] * (len(family.buckets) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._buckets[bisect_left(self.family.buckets, value)] += 1
        self._sum += value

    @property
    def count(self) -> int:
        return sum(self._buckets)

    def lines(self) -> list[str]:
        name, below, lines = self.family.name, 0, []
        for bound, inside in zip((*self.family.buckets, float("inf")), self._buckets, strict=True):
            below += inside
            lines.append(f'{name}_bucket{{le="{_number(bound)}"}} {below}')
        return [*lines, f"{name}_sum {_number(self._sum)}", f"{name}_count {below}"]


class Metrics:
    """All instruments of one process. Asked twice for a family, it gives the same instrument.

    Raises ValueError for two families of one name, which is a bug.
    """

    def __init__(self) -> None:
        self._instruments: dict[str, Instrument] = {}
        self._looks: list[Callable[[], None]] = []

    def counter(self, family: Family) -> Counter:
        found = self._known(family) or self._keep(Counter(family))
        assert isinstance(found, Counter)  # noqa: S101 - by the family's kind
        return found

    def gauge(self, family: Family) -> Gauge:
        found = self._known(family) or self._keep(Gauge(family))
        assert isinstance(found, Gauge)  # noqa: S101
        return found

    def histogram(self, family: Family) -> Histogram:
        found = self._known(family) or self._keep(Histogram(family))
        assert isinstance(found, Histogram)  # noqa: S101
        return found

    def before(self, look: Callable[[], None]) -> None:
        """Call `look` before every rendering: for gauges that are known without being counted along."""
        self._looks.append(look)

    @property
    def families(self) -> tuple[Family, ...]:
        return tuple(each.family for each in self._instruments.values())

    def render(self) -> str:
        """The text exposition format 0.0.4. Raises what a `look` raises."""
        for look in self._looks:
            look()
        lines: list[str] = []
        for instrument in sorted(self._instruments.values(), key=lambda each: each.family.name):
            family = instrument.family
            lines += (f"# HELP {family.name} {_help(family.help)}", f"# TYPE {family.name} {family.kind}")
            lines += instrument.lines()
        return "\n".join([*lines, ""])

    def _known(self, family: Family) -> Instrument | None:
        found = self._instruments.get(family.name)
        if found is not None and found.family != family:
            raise ValueError(f"{family.name} is declared twice")
        return found

    def _keep(self, instrument: Instrument) -> Instrument:
        self._instruments[instrument.family.name] = instrument
        return instrument


def _room(values: Mapping[Labels, float], labels: Labels) -> Labels:
    """The series of these labels, or the one that stands for all beyond the bound."""
    return labels if labels in values or len(values) < MAX_SERIES else (OTHER,) * len(labels)


def _lines(family: Family, values: Mapping[Labels, float]) -> list[str]:
    return [f"{family.name}{_labels(family.labels, labels)} {_number(values[labels])}" for labels in sorted(values)]


def _labels(names: Labels, values: Labels) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
