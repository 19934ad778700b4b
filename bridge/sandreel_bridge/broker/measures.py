"""What is measured of leases and of the vault."""

from __future__ import annotations

from collections.abc import Callable

from sandreel_core.metrics import LATENCY_S, Family, Metrics

LEASES = Family("sandreel_broker_leases_total", "counter", "Leases whose value was sent to a session.")
REFUSED = Family(
    "sandreel_broker_leases_refused_total",
    "counter",
    "Leases that were not given, by the code of the refusal.",
    ("code",),
)
LEASE_S = Family(
    "sandreel_broker_lease_seconds",
    "histogram",
    "Time from a session's question to the answer with the value.",
    buckets=LATENCY_S,
)
REVOKED = Family(
    "sandreel_broker_revocations_total", "counter", "Events credential.revoked, by their reason.", ("reason",)
)
VAULT_FAILURES = Family(
    "sandreel_broker_vault_failures_total",
    "counter",
    "How often the vault could not be asked, or did not answer in time.",
)
TOKENS = Family(
    "sandreel_broker_tokens_ended_total",
    "counter",
    "Minted tokens that work no more, by how they ended: ended by their issuer, or outlived: by themselves, after that was tried in vain.",
    ("how",),
)
HOLDING = Family("sandreel_broker_sessions_holding", "gauge", "Sessions that hold a grant or a lease.")
BROKER = (LEASES, REFUSED, LEASE_S, REVOKED, VAULT_FAILURES, TOKENS, HOLDING)


class BrokerMeasures:
    """One for a broker. `holding` is asked before every rendering."""

    def __init__(self, metrics: Metrics, holding: Callable[[], int]) -> None:
        self._leases = metrics.counter(LEASES)
        self._refused = metrics.counter(REFUSED)
        self._lease_s = metrics.histogram(LEASE_S)
        self._revoked = metrics.counter(REVOKED)
        self._vault_failures = metrics.counter(VAULT_FAILURES)
        self._tokens = metrics.counter(TOKENS)
        gauge = metrics.gauge(HOLDING)
        metrics.before(lambda: gauge.set(holding()))

    def leased(self, took_s: float) -> None:
        self._leases.add()
        self._lease_s.observe(took_s)

    def refused(self, code: str) -> None:
        self._refused.add(code)

    def revoked(self, reason: str) -> None:
        self._revoked.add(reason)

    def token(self, how: str) -> None:
        self._tokens.add(how)

    def vault_failed(self) -> None:
        self._vault_failures.add()
