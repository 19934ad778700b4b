"""Counters, gauges and histograms, as Prometheus' own parser reads them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from docs.metrics_page import ALERTS, GROUPS, PAGE, page
from sandreel_core.errors import Malformed
from sandreel_core.health_reading import samples
from sandreel_core.metrics import MAX_SERIES, OTHER, Family, Kind, Metrics

SEEN = Family("sandreel_seen_total", "counter", 'Seen, with a "quote",\na second line and a \\.', ("what", "where"))
SIZE = Family("sandreel_size_bytes", "gauge", "How large.")
TOOK = Family("sandreel_took_seconds", "histogram", "How long.", buckets=(0.1, 1.0))


def parsed(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.render())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_is_counted_is_what_prometheus_reads() -> None:
    metrics = Metrics()
    metrics.counter(SEEN).add("a", "b")
    metrics.counter(SEEN).add("a", "b", by=2.5)
    metrics.gauge(SIZE).set(-3)
    for seconds in (0.05, 0.1, 0.5, 30):
        metrics.histogram(TOOK).observe(seconds)
    assert parsed(metrics) == {
        ("sandreel_seen_total", (("what", "a"), ("where", "b"))): 3.5,
        ("sandreel_size_bytes", ()): -3,
        ("sandreel_took_seconds_bucket", (("le", "0.1"),)): 2,  # a bound belongs to its bucket
        ("sandreel_took_seconds_bucket", (("le", "1"),)): 3,
        ("sandreel_took_seconds_bucket", (("le", "+Inf"),)): 4,
        ("sandreel_took_seconds_sum", ()): 30.65,
        ("sandreel_took_seconds_count", ()): 4,
    }
    kinds = {family.name: (family.type, family.documentation) for family in text_string_to_metric_families(metrics.render())}  # fmt: skip
    assert kinds["sandreel_seen"] == ("counter", SEEN.help)
    assert kinds["sandreel_took_seconds"] == ("histogram", TOOK.help)


def test_what_has_no_labels_is_there_before_anything_happened() -> None:
    metrics = Metrics()
    metrics.counter(Family("sandreel_none_total", "counter", "None."))
    metrics.gauge(SIZE)
    metrics.histogram(TOOK)
    assert parsed(metrics)["sandreel_none_total", ()] == 0
    assert parsed(metrics)["sandreel_size_bytes", ()] == 0
    assert parsed(metrics)["sandreel_took_seconds_count", ()] == 0


@given(st.text(), st.text(), st.floats(min_value=0, allow_infinity=True))
def test_any_label_and_number_come_back_as_they_were(what: str, where: str, by: float) -> None:
    metrics = Metrics()
    metrics.counter(SEEN).add(what, where, by=by)
    (own,) = samples(metrics.render())
    assert (own.name, own.labels, own.value) == (SEEN.name, {"what": what, "where": where}, by)
    if not any(line in what + where for line in ("\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")):  # fmt: skip
        assert parsed(metrics) == {(SEEN.name, (("what", what), ("where", where))): by}


def test_series_are_bounded_and_nothing_is_uncounted() -> None:
    metrics = Metrics()
    for i in range(MAX_SERIES + 10):
        metrics.counter(SEEN).add(str(i), "here")
    counter = metrics.counter(SEEN)
    assert counter.total(OTHER, OTHER) == 10
    assert len(parsed(metrics)) == MAX_SERIES + 1


def test_a_gauge_forgets_what_is_not_named_any_more() -> None:
    metrics = Metrics()
    gauge = metrics.gauge(Family("sandreel_here", "gauge", "Here.", ("who",)))
    gauge.replace({("a",): 1, ("b",): 2})
    gauge.replace({("b",): 3})
    assert parsed(metrics) == {("sandreel_here", (("who", "b"),)): 3}


def test_looks_are_asked_before_every_rendering() -> None:
    metrics = Metrics()
    gauge, looks = metrics.gauge(SIZE), iter((1, 2))
    metrics.before(lambda: gauge.set(next(looks)))
    assert [parsed(metrics)["sandreel_size_bytes", ()] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize(
    ("name", "kind", "help", "labels", "buckets"),
    [
        ("Upper_total", "counter", "x", (), ()),
        ("a b", "gauge", "x", (), ()),
        ("seen", "counter", "x", (), ()),
        ("seen_total", "gauge", "x", (), ()),
        ("seen", "gauge", "", (), ()),
        ("seen", "gauge", "x", ("le",), ()),
        ("seen", "gauge", "x", ("a b",), ()),
        ("took", "histogram", "x", (), ()),
        ("took", "histogram", "x", (), (2.0, 1.0)),
        ("took", "gauge", "x", (), (1.0,)),
    ],
)
def test_a_family_against_the_conventions_is_a_bug(
    name: str, kind: Kind, help: str, labels: tuple[str, ...], buckets: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match=name):
        Family(name, kind, help, labels, buckets)


def test_one_name_is_one_family() -> None:
    metrics = Metrics()
    assert metrics.gauge(SIZE) is metrics.gauge(SIZE)
    with pytest.raises(ValueError, match="declared twice"):
        metrics.gauge(Family(SIZE.name, "gauge", "Something else."))


@pytest.mark.parametrize("text", ["no value", "name{a=1} x", "<html>", "UPPER 1"])
def test_what_is_no_metrics_is_said_to_be_none(text: str) -> None:
    with pytest.raises(Malformed):
        samples(text)


def test_the_page_is_what_the_roles_declare() -> None:
    assert PAGE.read_text() == page(), "docs/metrics.md has drifted: run `make metrics`"


def test_units_and_labels_follow_the_conventions() -> None:
    families = [family for group in GROUPS.values() for family in group]
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert not {"org", "session", "exec", "id", "owner"} & set(family.labels), family.name
        assert not re.search(r"_(ms|s|ns|mb|kb|mib|percent)(_|$)", family.name), family.name
        assert family.help.endswith("."), family.name


def test_alerts_name_only_what_is_served() -> None:
    names = {family.name for group in GROUPS.values() for family in group}
    for alert in ALERTS:
        used = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"sandreel_\w+", alert.expr)}
        assert used <= names, alert.name
