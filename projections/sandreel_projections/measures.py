"""What is measured of the views: how far behind they are, and what their transactions cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sandreel_core.health import Health
from sandreel_core.metrics import LATENCY_S, Family, Labels, Metrics
from sandreel_projections.batch import Batch
from sandreel_projections.tables import usage_reconciled

LEADING = Family(
    "sandreel_projection_leading",
    "gauge",
    "Whether this projector writes what is made of the stream (1) or stands by or is interrupted (0).",
    ("stream",),
)
LAG_EVENTS = Family(
    "sandreel_projection_lag_events",
    "gauge",
    "Messages of the stream that the views do not hold yet; of who leads.",
    ("stream",),
)
LAG_S = Family(
    "sandreel_projection_lag_seconds",
    "gauge",
    "Between the newest event and the newest one that the views hold, by the server's timestamps; of who leads.",
    ("stream",),
)
LOOK_AGE = Family(
    "sandreel_projection_look_age_seconds",
    "gauge",
    "How long ago the stream's end was looked at, on which the lag is based; of who leads.",
    ("stream",),
)
EVENTS = Family("sandreel_projection_events_total", "counter", "Events that were folded and committed.")
QUARANTINED = Family(
    "sandreel_projection_quarantined_total", "counter", "Events that no fold digests, kept in reel.quarantine."
)
INTERRUPTIONS = Family(
    "sandreel_projection_interruptions_total",
    "counter",
    "How often the views of a stream stood still because NATS or Postgres could not be reached.",
)
# 4000 events is the bound of a transaction unless [projections] max_batch_events says otherwise.
BATCH = Family(
    "sandreel_projection_batch_events",
    "histogram",
    "Events in one transaction.",
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000),
)
COMMIT_S = Family(
    "sandreel_projection_commit_seconds", "histogram", "Time that one transaction took.", buckets=LATENCY_S
)
DRIFTED = Family(
    "sandreel_usage_drifted_turns_total",
    "counter",
    "Turns of which the agent said another usage than the gateway counted, beyond what is usual; reel.usage_turns has them.",
)
PROJECTOR = (LEADING, LAG_EVENTS, LAG_S, LOOK_AGE, EVENTS, QUARANTINED, INTERRUPTIONS, BATCH, COMMIT_S, DRIFTED)


@dataclass(slots=True)
class _Place:
    """Where a stream that we lead is. `looked_at` is of the monotonic clock, None before the first look."""

    sequence: int
    time_ns: int | None = None
    stream_sequence: int = 0
    stream_time_ns: int | None = None
    looked_at: float | None = None


class ProjectionMeasures:
    """Of all streams of one process; told by the projectors once a batch, never once an event."""

    def __init__(
        self, metrics: Metrics, health: Health | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._health = health
        self._monotonic = monotonic
        self._places: dict[str, _Place | None] = {}
        self._leading = metrics.gauge(LEADING)
        self._lag_events = metrics.gauge(LAG_EVENTS)
        self._lag_s = metrics.gauge(LAG_S)
        self._look_age = metrics.gauge(LOOK_AGE)
        self._events = metrics.counter(EVENTS)
        self._quarantined = metrics.counter(QUARANTINED)
        self._interruptions = metrics.counter(INTERRUPTIONS)
        self._drifted = metrics.counter(DRIFTED)
        self._batch = metrics.histogram(BATCH)
        self._commit_s = metrics.histogram(COMMIT_S)
        metrics.before(self._show)

    def connected(self, stream: str) -> None:
        """Postgres answers (again)."""
        self._places.setdefault(stream, None)
        if self._health is not None:
            self._health.well(stream)

    def leading(self, stream: str, sequence: int) -> None:
        self._places[stream] = _Place(sequence)

    def not_leading(self, stream: str) -> None:
        self._places[stream] = None

    def interrupted(self, stream: str) -> None:
        self._interruptions.add()
        if self._health is not None:
            self._health.trouble(
                stream,
                "its views stand still: NATS or Postgres cannot be reached, or who led changed",
            )

    def committed(self, stream: str, batch: Batch, took_s: float) -> None:
        self._events.add(by=batch.events)
        self._quarantined.add(by=len(batch.quarantined))
        reconciled = batch.rows.get(usage_reconciled.name, {})
        self._drifted.add(by=sum(getattr(row, "drifted", None) is True for row in reconciled.values()))
        self._batch.observe(batch.events)
        self._commit_s.observe(took_s)
        place = self._places.get(stream)
        if place is not None:
            place.sequence = batch.sequence
            place.time_ns = round(batch.at.timestamp() * 1e9) if batch.at else place.time_ns

    def looked(self, stream: str, stream_sequence: int, stream_time_ns: int | None) -> None:
        """The stream ends there; the time is that of its last event, None when that is what the views hold."""
        place = self._places.get(stream)
        if place is not None:
            place.stream_sequence, place.stream_time_ns = stream_sequence, stream_time_ns
            place.looked_at = self._monotonic()

    def _show(self) -> None:
        moment = self._monotonic()
        leading: dict[Labels, float] = {}
        lag_events: dict[Labels, float] = {}
        lag_s: dict[Labels, float] = {}
        look_age: dict[Labels, float] = {}
        for stream, place in self._places.items():
            key = (stream,)
            leading[key] = int(place is not None)
            if place is None or place.looked_at is None:
                continue
            look_age[key] = round(moment - place.looked_at, 3)
            lag_events[key] = max(0, place.stream_sequence - place.sequence)
            if lag_events[key] == 0 or place.stream_time_ns is None:
                lag_s[key] = 0
            elif place.time_ns is not None:  # else nothing was committed yet since we lead
                lag_s[key] = max(0.0, round((place.stream_time_ns - place.time_ns) / 1e9, 3))
        self._leading.replace(leading)
        self._lag_events.replace(lag_events)
        self._lag_s.replace(lag_s)
        self._look_age.replace(look_age)
