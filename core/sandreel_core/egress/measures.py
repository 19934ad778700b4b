"""What is measured of the egress proxy. No label holds an org, a session or a host."""

from __future__ import annotations

from sandreel_core.metrics import LATENCY_S, Family, Metrics

DECISIONS = Family(
    "sandreel_egress_decisions_total",
    "counter",
    "Connections that were asked for, by what was decided: allowed, or the reason of the refusal.",
    ("decision",),
)
OPEN = Family("sandreel_egress_connections_open", "gauge", "Connections of sessions to the proxy that are open now.")
MAX_OPEN = Family("sandreel_egress_connections_max", "gauge", "The limit of those: [egress] max_connections.")
UP = Family("sandreel_egress_sent_bytes_total", "counter", "Bytes from sessions to the outside, of ended tunnels.")
DOWN = Family("sandreel_egress_received_bytes_total", "counter", "Bytes from outside to sessions, of ended tunnels.")
CONNECT_S = Family(
    "sandreel_egress_connect_seconds",
    "histogram",
    "From a request's head to the connection outside: look-up and handshake, of those that came about.",
    buckets=LATENCY_S,
)
IDLE = Family("sandreel_egress_idle_total", "counter", "Tunnels that were cut because nothing moved in them.")
UNTOLD = Family("sandreel_egress_denied_untold", "gauge", "Refusals that are counted, but not in NATS yet.")
EGRESS = (DECISIONS, OPEN, MAX_OPEN, UP, DOWN, CONNECT_S, IDLE, UNTOLD)


class EgressMeasures:
    """Of one proxy."""

    def __init__(self, metrics: Metrics, max_connections: int) -> None:
        self.decisions = metrics.counter(DECISIONS)
        self.open = metrics.gauge(OPEN)
        self.up = metrics.counter(UP)
        self.down = metrics.counter(DOWN)
        self.connect_s = metrics.histogram(CONNECT_S)
        self.idle = metrics.counter(IDLE)
        self.untold = metrics.gauge(UNTOLD)
        metrics.gauge(MAX_OPEN).set(max_connections)
