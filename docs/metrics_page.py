"""Writes docs/metrics.md from what the roles declare: `make metrics`. A test fails when the page has drifted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sandreel_bridge.broker.measures import BROKER
from sandreel_bridge.gateway.measures import GATEWAY
from sandreel_bridge.measures import BRIDGE
from sandreel_core.bus.measures import BUS, COMMANDS
from sandreel_core.egress.measures import EGRESS
from sandreel_core.metrics import Family
from sandreel_core.process_measures import PROCESS
from sandreel_core.spawner.measures import SPAWNER
from sandreel_projections.measures import PROJECTOR

PAGE = Path(__file__).with_name("metrics.md")
GROUPS: dict[str, tuple[Family, ...]] = {
    "Every role": (*PROCESS, *BUS),
    "Roles that answer commands (spawner, broker, bridge)": COMMANDS,
    "The spawner: sessions, recorders, streams": SPAWNER,
    "The projector": PROJECTOR,
    "The broker: leases": BROKER,
    "The egress proxy": EGRESS,
    "The gateway": GATEWAY,
    "The bridge": BRIDGE,
}


@dataclass(frozen=True, slots=True)
class Alert:
    """A Prometheus rule. `holds` is how long it must be so."""

    name: str
    expr: str
    holds: str
    says: str


ALERTS = (
    Alert("SandreelRoleAbsent", 'up{job="sandreel"} == 0', "1m", "A role does not answer: look at its log."),
    Alert("SandreelRoleFailing", "sandreel_role_status == 2", "1m", "Its /healthz says why."),
    Alert("SandreelBusAway", "sandreel_bus_connected == 0", "1m", "The role does not reach NATS."),
    Alert(
        "SandreelViewsBehind",
        "max by (stream) (sandreel_projection_lag_seconds) > 30",
        "2m",
        "The views fall behind: look at Postgres' disk and at the projector's log.",
    ),
    Alert(
        "SandreelViewsUnled",
        "max by (stream) (sandreel_projection_leading) == 0",
        "1m",
        "Nobody writes what is made of this stream.",
    ),
    Alert(
        "SandreelQuarantined",
        "increase(sandreel_projection_quarantined_total[10m]) > 0",
        "0m",
        "An event is not in the views: sandreel projections quarantine ls.",
    ),
    Alert(
        "SandreelUsageDrifts",
        "increase(sandreel_usage_drifted_turns_total[1h]) > 0",
        "0m",
        "An agent and the gateway disagree on what a turn used: sandreel doctor names it.",
    ),
    Alert(
        "SandreelTokenOutlived",
        'increase(sandreel_broker_tokens_ended_total{how="outlived"}[1h]) > 0',
        "0m",
        "A minted token worked on after its lease: its issuer did not end it; sandreel credential audit names the lease.",
    ),
    Alert(
        "SandreelDeadLetters",
        'max(sandreel_stream_messages{stream="DEAD"}) > 0',
        "0m",
        "A command that cannot be read, or that failed five times.",
    ),
    Alert(
        "SandreelRedeliveries",
        "rate(sandreel_commands_redelivered_total[10m]) > 0.05 * rate(sandreel_commands_answered_total[10m])",
        "10m",
        "Commands are delivered again: a role dies, or NATS is slow.",
    ),
    Alert(
        "SandreelCommandsFail",
        'increase(sandreel_commands_refused_total{code="INTERNAL"}[10m]) > 0',
        "0m",
        "A bug refused a command: the role's log has the traceback.",
    ),
    Alert(
        "SandreelCommandsSlow",
        "histogram_quantile(0.95, sum by (le) (rate(sandreel_commands_outcome_seconds_bucket[10m]))) > 1",
        "10m",
        "One command in twenty waits longer than a second for its outcome.",
    ),
    Alert(
        "SandreelStreamFilling",
        "max by (stream) (sandreel_stream_bytes) > 0.8 * max by (stream) (sandreel_stream_max_bytes)",
        "10m",
        "Run `sandreel archive`; at 90 % output waits.",
    ),
    Alert(
        "SandreelHeartbeatsLate",
        "max(sandreel_heartbeats_late) > 0",
        "1m",
        "Sessions run and are not heard: their machine, or its way to NATS.",
    ),
    Alert(
        "SandreelSpoolFilling",
        "max(sandreel_runnerd_spool_used_ratio) > 0.5",
        "1m",
        "NATS does not take output as fast as it is printed; jobs wait when a spool is full.",
    ),
    Alert(
        "SandreelEgressFull",
        "max(sandreel_egress_connections_open / sandreel_egress_connections_max) > 0.9",
        "1m",
        "Sessions are about to get no connection: raise [egress] max_connections, or run another proxy.",
    ),
    Alert(
        "SandreelUsageUnrecorded",
        "max(sandreel_gateway_usage_unrecorded) > 0",
        "1m",
        "Model calls wait to be recorded: NATS does not take them, and at [gateway] max_unrecorded none passes.",
    ),
    Alert(
        "SandreelCallsNotWritten",
        "increase(sandreel_gateway_daybook_failures_total[5m]) > 0",
        "0m",
        "The gateway's disk takes nothing, so that no model call is let through: make room in its state_directory.",
    ),
    Alert(
        "SandreelCallsUnpriced",
        "increase(sandreel_gateway_unpriced_total[10m]) > 0",
        "0m",
        "Calls whose cost is not known: a model without a price, or replies that were cut.",
    ),
    Alert("SandreelOutputHeld", "max(sandreel_runnerd_held) > 0", "1m", "A stream is nearly full, and jobs wait."),
    Alert(
        "SandreelOutputMissing",
        "increase(sandreel_runnerd_gaps_total[10m]) > 0",
        "0m",
        "NATS refused output for good, or lost it: exec.gap says what and why.",
    ),
)

_HEAD = """\
# Health and metrics

Generated by `make metrics` from what the roles declare; do not edit.

Every role serves `/healthz` and `/metrics` on `[health] listen` (`HOST:PORT`; absent: nowhere). Below `sandreel up` each role has a
port of its own on loopback, kept over restarts: `sandreel health` shows them, `sandreel doctor` reads them and says what to do.
Neither document holds the id of an org, a session or an exec, nor any address or secret; there is no password, so keep the
port inside. A request may take 5 s and 8 KiB, 16 connections are served at once (more are
reset), and whatever else is asked for is 404.

`/healthz` is JSON: `status` is `ok`, `degraded` (it goes on with less: 200) or `failing` (503), and `reasons` says of which part and for
how long. What is degraded for a minute is failing, but for a stream that is nearly full. A role that starts or waits for NATS is failing.
Use it for readiness; a restart mends nothing that another server lacks.

runnerd listens nowhere: its heartbeats carry its window, spool and counts, and the spawner adds them up. Two spawners hear the same
heartbeats: take the greatest, not the sum.

```yaml
scrape_configs:
  - job_name: sandreel
    static_configs:
      - targets: ["127.0.0.1:20345", "127.0.0.1:21526"]  # as `sandreel health` shows them
```
"""


def page() -> str:
    """The whole of docs/metrics.md."""
    parts = [_HEAD]
    for title, families in GROUPS.items():
        rows = [f"| `{each.name}` | {each.kind} | {_labels(each)} | {each.help} |" for each in families]
        parts.append("\n".join([f"## {title}", "", "| name | kind | labels | what |", "|---|---|---|---|", *rows, ""]))
    parts.append("\n".join(["## Suggested alerts", "", "```yaml", *_rules(), "```", ""]))
    return "\n".join(parts)


def _labels(family: Family) -> str:
    return ", ".join(f"`{label}`" for label in family.labels)


def _rules() -> list[str]:
    lines = ["groups:", "  - name: sandreel", "    rules:"]
    for alert in ALERTS:
        # A JSON string is a YAML string.
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.expr)}",
            f"        for: {alert.holds}",
        ]
        lines += ["        annotations:", f"          summary: {json.dumps(alert.says)}"]
    return lines


if __name__ == "__main__":
    PAGE.write_text(page())
