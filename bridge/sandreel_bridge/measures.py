"""What is measured of the bridge. No label holds an org, a session or a turn."""

from __future__ import annotations

from sandreel_core import clock
from sandreel_core.metrics import LATENCY_S, Family, Metrics
from sandreel_core.turn import Turn

DRIVEN = Family("sandreel_bridge_turns_driven", "gauge", "Turns that this bridge drives now.")
OPEN = Family(
    "sandreel_bridge_turns_unsettled",
    "gauge",
    "Turns of the installation that are not settled, by whomever they are driven.",
)
FINISHED = Family(
    "sandreel_bridge_turns_finished_total",
    "counter",
    "Turns that this bridge finished, by how they ended.",
    ("status",),
)
TAKEN = Family(
    "sandreel_bridge_turns_taken_over_total", "counter", "Turns that ran already when this bridge began to drive them."
)
EVENTS = Family("sandreel_bridge_agent_events_total", "counter", "Agent events that this bridge has appended.")
START_S = Family(
    "sandreel_bridge_start_seconds",
    "histogram",
    "From a turn's being asked for, by the clock of whoever answered the command, to its program's being accepted.",
    buckets=LATENCY_S,
)
REVOKED = Family(
    "sandreel_bridge_orphaned_keys_total", "counter", "Keys that no turn needed any more and the scan revoked."
)
BRIDGE = (DRIVEN, OPEN, FINISHED, TAKEN, EVENTS, START_S, REVOKED)


class BridgeMeasures:
    """Of one bridge."""

    def __init__(self, metrics: Metrics) -> None:
        self.driven = metrics.gauge(DRIVEN)
        self.open = metrics.gauge(OPEN)
        self._finished = metrics.counter(FINISHED)
        self._taken = metrics.counter(TAKEN)
        self._events = metrics.counter(EVENTS)
        self._start_s = metrics.histogram(START_S)
        self.revoked = metrics.counter(REVOKED)

    def began(self, turn: Turn) -> None:
        if turn.asked is not None:
            self._start_s.observe(max(0.0, (clock.now() - turn.asked.at).total_seconds()))

    def finished(self, status: str) -> None:
        self._finished.add(status)

    def took_over(self) -> None:
        self._taken.add()

    def events(self, count: int) -> None:
        self._events.add(by=count)
