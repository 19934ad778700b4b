"""What is measured of the bus and of the command loop, in every role that has them."""

from __future__ import annotations

from sandreel_core.bus.port import Bus, Stored
from sandreel_core.errors import AlreadyExists, Conflict, Full, SandreelError, Unavailable
from sandreel_core.metrics import LATENCY_S, Family, Metrics

CONNECTED = Family("sandreel_bus_connected", "gauge", "Whether the role is connected to NATS: 1 or 0.")
RECONNECTS = Family("sandreel_bus_reconnects_total", "counter", "Connections to NATS after the first one.")
APPENDS = Family(
    "sandreel_bus_appends_total",
    "counter",
    "Events and commands that the role appended and awaited one by one, by outcome: stored, conflict (decided again),"
    " exists (repeated), full, unavailable (tried again), refused.",
    ("outcome",),
)
APPEND_S = Family(
    "sandreel_bus_append_seconds",
    "histogram",
    "Time from asking the server to store one message to its answer, for what was stored.",
    buckets=LATENCY_S,
)
BUS = (CONNECTED, RECONNECTS, APPENDS, APPEND_S)

ANSWERED = Family("sandreel_commands_answered_total", "counter", "Commands whose outcome this process has stored.")
REFUSED = Family(
    "sandreel_commands_refused_total", "counter", "Commands that were refused, by the code of the refusal.", ("code",)
)
REDELIVERIES = Family(
    "sandreel_commands_redelivered_total",
    "counter",
    "Deliveries of a command that had been delivered before, to this process or to another one.",
)
RETRIES = Family(
    "sandreel_commands_retried_total", "counter", "Commands that were given back, to be delivered again later."
)
DEAD_LETTERS = Family(
    "sandreel_commands_dead_total",
    "counter",
    "Commands that were kept in the stream DEAD, because they cannot be read or failed five times.",
)
OUTCOME_S = Family(
    "sandreel_commands_outcome_seconds",
    "histogram",
    "Time from the server's timestamp of a command to its outcome being stored, by the clock of this machine (0 where"
    " the clocks disagree about which was first).",
    buckets=LATENCY_S,
)
COMMANDS = (ANSWERED, REFUSED, REDELIVERIES, RETRIES, DEAD_LETTERS, OUTCOME_S)

_NAMES: tuple[tuple[type[SandreelError], str], ...] = (
    (Conflict, "conflict"),
    (AlreadyExists, "exists"),
    (Full, "full"),
    (Unavailable, "unavailable"),
)
OUTCOMES = ("stored", *(name for _, name in _NAMES), "refused")


class BusMeasures:
    """Of one bus. `watch` names it; what it is like is asked whenever somebody looks."""

    def __init__(self, metrics: Metrics) -> None:
        self._connected = metrics.gauge(CONNECTED)
        self._reconnects = metrics.counter(RECONNECTS)
        self._appends = metrics.counter(APPENDS)
        self._append_s = metrics.histogram(APPEND_S)
        self._metrics = metrics
        for outcome in OUTCOMES:
            self._appends.add(outcome, by=0)  # so that the first one is seen to have been added

    def watch(self, bus: Bus) -> None:
        def look() -> None:
            self._connected.set(int(bus.connected))
            self._reconnects.add(by=max(0, bus.generation - 1 - self._reconnects.total()))

        self._metrics.before(look)

    def stored(self, took_s: float) -> None:
        self._appends.add("stored")
        self._append_s.observe(took_s)

    def failed(self, error: SandreelError) -> None:
        self._appends.add(next((name for kind, name in _NAMES if isinstance(error, kind)), "refused"))


class CommandMeasures:
    """Of one command loop; those of several in one process count together."""

    def __init__(self, metrics: Metrics) -> None:
        self._answered = metrics.counter(ANSWERED)
        self._refused = metrics.counter(REFUSED)
        self._redeliveries = metrics.counter(REDELIVERIES)
        self._retries = metrics.counter(RETRIES)
        self._dead = metrics.counter(DEAD_LETTERS)
        self._outcome_s = metrics.histogram(OUTCOME_S)

    def delivered(self, attempts: int) -> None:
        if attempts > 1:
            self._redeliveries.add()

    def given_back(self) -> None:
        self._retries.add()

    def answered(self, command: Stored, unix_s: float, code: str | None) -> None:
        """`unix_s` is now; `code` is that of the refusal, if it was one."""
        self._answered.add()
        self._outcome_s.observe(max(0.0, unix_s - command.time_ns / 1e9))
        if code is not None:
            self._refused.add(code)

    def buried(self) -> None:
        self._dead.add()
