"""What a role's health and metrics say to an operator: what is wrong, and how to mend it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sandreel_core.cli.check import Check, Level
from sandreel_core.cli.health import span
from sandreel_core.cli.roles import Told
from sandreel_core.cli.text import clean

if TYPE_CHECKING:
    from sandreel_core.health_reading import Reading

# `reel.projection_lag` is looked at every 2 s; a batch takes less than that.
_BEHIND_S = 10.0
# The stream's end is looked at every [projections] look_s (2 s).
_UNSEEN_S = 30.0
# A spawner that is killed leaves a few deliveries to the next one: that is no trouble.
_REDELIVERED_SHARE, _REDELIVERED_FROM = 0.05, 10
_SPOOL_SHARE = 0.8


def checks(told: Told, *, log: str) -> list[Check]:
    """One line that says how the role is, and one for everything that its metrics say is wrong."""
    if told.reading is None:
        mend = f"look at its log, {log}; if it hangs, end it: it is started again"
        return [_check(f"health of {told.name}", "fail", told.problem, mend)]
    report = told.reading.report
    name = f"health of {told.name}"
    found = [_check(f"{name}, {reason.part}", _level(reason.status), f"{reason.text}, for {span(reason.for_s)}", f"look at its log, {log}") for reason in report.reasons]  # fmt: skip
    if not found:
        found = [_check(name, "ok", f"answers at {told.place.listen}, up {span(report.uptime_s)}")]
    return [*found, *_recorders(told.reading), *_commands(told.reading, told.name), *_views(told.reading)]


def _recorders(reading: Reading) -> Iterator[Check]:
    late = reading.total("sandreel_heartbeats_late")
    if late:
        oldest = reading.total("sandreel_heartbeat_oldest_seconds")
        found = f"{late:.0f} sessions, the oldest heartbeat is {span(oldest)} old"
        mend = "`sandreel session ls` says which are degraded; look at their machine and at its way to NATS"
        yield _check("heartbeats late", "warn", found, mend)
    spooled = reading.total("sandreel_runnerd_spool_bytes")
    held = reading.total("sandreel_runnerd_held")
    if held:
        mend = "make room: run `sandreel archive`, or raise [bus] reel_max_bytes"
        yield _check("output held", "fail", f"{held:.0f} sessions wait, because a stream is nearly full", mend)
    if spooled:
        share = reading.total("sandreel_runnerd_spool_used_ratio")
        level: Level = "fail" if share >= _SPOOL_SHARE else "warn"
        found = f"{spooled / (1 << 20):.1f} MiB of output are not in NATS yet, the fullest spool is {share:.0%} full"
        mend = "nothing is lost, jobs wait when it is full: look whether NATS answers and its disk is quick enough"
        yield _check("spool in use", level, found, mend)
    gaps = reading.total("sandreel_runnerd_gaps_total")
    if gaps:
        mend = "the event exec.gap says why: a body over the server's max_payload, a permission, or a stream that was restored"
        found = f"{gaps:.0f} times an exec.gap had to say that NATS refused output for good or has lost it"
        yield _check("output missing", "fail", found, mend)


def _commands(reading: Reading, role: str) -> Iterator[Check]:
    dead = reading.total("sandreel_stream_messages", stream="DEAD")
    if dead:
        found = f"{dead:.0f} commands that cannot be read, or failed five times"
        mend = "look in the log of the role that they were for, mend who sends them, then purge the stream DEAD"
        yield _check("dead letters", "warn", found, mend)
    again = reading.total("sandreel_commands_redelivered_total")
    answered = reading.total("sandreel_commands_answered_total")
    if again >= _REDELIVERED_FROM and again > _REDELIVERED_SHARE * (answered + again):
        found = f"{again:.0f} deliveries were repeats, for {answered:.0f} commands that {role} has answered"
        mend = "each still counts once; if it grows, look why the role dies or NATS is slow to answer"
        yield _check(f"redeliveries, {role}", "warn", found, mend)


def _views(reading: Reading) -> Iterator[Check]:
    for sample in reading.named("sandreel_projection_leading"):
        if not sample.value:
            continue
        stream = sample.labels["stream"]
        age_s = reading.total("sandreel_projection_look_age_seconds", stream=stream)
        lag_s = reading.total("sandreel_projection_lag_seconds", stream=stream)
        events = reading.total("sandreel_projection_lag_events", stream=stream)
        name = f"lag behind {stream}"
        if age_s > _UNSEEN_S:
            mend = "look whether NATS and Postgres answer"
            yield _check(name, "fail", f"the projector has not seen the stream's end for {span(age_s)}", mend)
        elif lag_s > _BEHIND_S:
            mend = "wait; if it grows, look at the projector's log and at Postgres' disk"
            yield _check(name, "warn", f"the views are {events:.0f} events, {span(lag_s)} behind", mend)


def _level(status: str) -> Level:
    return "fail" if status == "failing" else "warn"


def _check(name: str, level: Level, found: str, mend: str = "") -> Check:
    return Check(name=clean(name), level=level, found=clean(found), mend=mend)
