"""What is measured of the gateway. No label holds an org, a session, a key or a model."""

from __future__ import annotations

from sandreel_core.metrics import LATENCY_S, Family, Metrics

CALLS = Family(
    "sandreel_gateway_calls_total",
    "counter",
    "Model calls that ended, by provider and what became of them: complete, cut, failed (its status), unreachable.",
    ("provider", "outcome"),
)
REFUSED = Family(
    "sandreel_gateway_refused_total", "counter", "Requests that did not pass, by the status that said so.", ("status",)
)
TURNED_AWAY = Family(
    "sandreel_gateway_connections_refused_total", "counter", "Connections beyond the bounds, closed as they came."
)
OPEN = Family("sandreel_gateway_calls_open", "gauge", "Model calls under way.")
KEYS = Family("sandreel_gateway_keys_live", "gauge", "Virtual keys that are live.")
FIRST_BYTE_S = Family(
    "sandreel_gateway_first_byte_seconds",
    "histogram",
    "From the end of a request to the head of the provider's reply: the provider's own time is in it.",
    buckets=LATENCY_S,
)
COST = Family("sandreel_gateway_cost_usd_total", "counter", "What calls cost by the price table, by provider.", ("provider",))  # fmt: skip
UNPRICED = Family("sandreel_gateway_unpriced_total", "counter", "Calls that ended and have no known price.")
UNRECORDED = Family("sandreel_gateway_usage_unrecorded", "gauge", "Calls that ended and are not in the log yet.")
UNRECORDABLE = Family("sandreel_gateway_usage_refused_total", "counter", "Calls that the log refused for good.")
DAYBOOK_BYTES = Family(
    "sandreel_gateway_daybook_bytes", "gauge", "Of the file where calls stand that NATS may not have yet."
)
DAYBOOK_FAILURES = Family(
    "sandreel_gateway_daybook_failures_total",
    "counter",
    "How often that file could not be written; no call begins then.",
)
GATEWAY = (
    CALLS,
    REFUSED,
    TURNED_AWAY,
    OPEN,
    KEYS,
    FIRST_BYTE_S,
    COST,
    UNPRICED,
    UNRECORDED,
    UNRECORDABLE,
    DAYBOOK_BYTES,
    DAYBOOK_FAILURES,
)


class GatewayMeasures:
    """Of one gateway."""

    def __init__(self, metrics: Metrics) -> None:
        self.calls = metrics.counter(CALLS)
        self.refused = metrics.counter(REFUSED)
        self.turned_away = metrics.counter(TURNED_AWAY)
        self.open = metrics.gauge(OPEN)
        self.keys = metrics.gauge(KEYS)
        self.first_byte_s = metrics.histogram(FIRST_BYTE_S)
        self.cost = metrics.counter(COST)
        self.unpriced = metrics.counter(UNPRICED)
        self.unrecorded = metrics.gauge(UNRECORDED)
        self.unrecordable = metrics.counter(UNRECORDABLE)
        self.daybook_bytes = metrics.gauge(DAYBOOK_BYTES)
        self.daybook_failures = metrics.counter(DAYBOOK_FAILURES)
