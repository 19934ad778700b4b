"""How far behind the views are, as it is shown: by the server's timestamps, and of who leads alone."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct

from sandreel_core.health import Health
from sandreel_core.health_reading import Reading, samples
from sandreel_core.metrics import Metrics
from sandreel_projections.batch import Batch
from sandreel_projections.measures import ProjectionMeasures

AT_NS = 1_700_000_000 * 10**9


class Shown:
    def __init__(self) -> None:
        self.now = 50.0
        self.metrics = Metrics()
        self.health = Health("projections", version="1", pid=1, monotonic=lambda: self.now)
        self.health.ready()
        self.measures = ProjectionMeasures(self.metrics, self.health, lambda: self.now)

    def total(self, name: str) -> float | None:
        """Of stream REEL-3; None where there is no such series."""
        reading = Reading(self.health.report(), samples(self.metrics.render()))
        found = reading.named(f"sandreel_projection_{name}", stream="REEL-3")
        return found[0].value if found else None


def batch(sequence: int, events: int = 1) -> Batch:
    return Batch(before=0, sequence=sequence, at=datetime.fromtimestamp(AT_NS / 1e9, UTC), events=events)


def test_lag_is_between_the_newest_event_and_the_newest_that_the_views_hold() -> None:
    shown = Shown()
    shown.measures.connected("REEL-3")
    assert (shown.total("leading"), shown.total("lag_events")) == (0, None)
    shown.measures.leading("REEL-3", 10)
    assert (shown.total("leading"), shown.total("lag_events")) == (1, None), "nobody has looked yet"
    shown.measures.looked("REEL-3", 25, AT_NS)
    # What the first of these events has for a time is not known before it is written: no number is better than a wrong one.
    assert (shown.total("lag_events"), shown.total("lag_seconds")) == (15, None)
    shown.measures.committed("REEL-3", batch(20, events=10), 0.01)
    shown.measures.looked("REEL-3", 25, AT_NS + 2_500_000_000)
    shown.now += 4
    assert (shown.total("lag_events"), shown.total("lag_seconds"), shown.total("look_age_seconds")) == (5, 2.5, 4)
    shown.measures.committed("REEL-3", batch(30, events=5), 0.01)
    assert (shown.total("lag_events"), shown.total("lag_seconds")) == (0, 0), "ahead of the last look is not behind"


def test_who_is_interrupted_shows_no_lag_and_says_so_until_postgres_answers() -> None:
    shown = Shown()
    shown.measures.connected("REEL-3")
    shown.measures.leading("REEL-3", 10)
    shown.measures.looked("REEL-3", 10, None)
    assert shown.total("lag_seconds") == 0
    shown.measures.interrupted("REEL-3")
    shown.measures.not_leading("REEL-3")
    assert (shown.total("leading"), shown.total("lag_events")) == (0, None)
    assert [(reason.part, reason.status) for reason in shown.health.report().reasons] == [("REEL-3", "degraded")]
    shown.measures.committed(
        "REEL-3", batch(11), 0.01
    )  # of a batch that was under way: it counts, and nobody leads by it
    assert shown.total("leading") == 0
    shown.measures.connected("REEL-3")
    assert shown.health.report().status == "ok"


def test_turns_on_which_agent_and_gateway_disagree_are_counted() -> None:
    shown = Shown()
    told = batch(3)
    for number, drifted in enumerate((True, False, None)):
        told.rows["usage_reconciled"]["acme", "s1", f"t{number}"] = _Reconciled(drifted)
    shown.measures.committed("REEL-3", told, 0.01)
    shown.measures.committed("REEL-3", batch(4), 0.01)
    reading = Reading(shown.health.report(), samples(shown.metrics.render()))
    assert [each.value for each in reading.named("sandreel_usage_drifted_turns_total")] == [1]


class _Reconciled(Struct):
    drifted: bool | None
