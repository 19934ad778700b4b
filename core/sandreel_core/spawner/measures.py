"""What is measured of sessions and of their recorders. runnerd listens on no port: its heartbeats are added up here.

The counts of recorders are those of the boots that this spawner heard, so two spawners show the same heartbeats: take
the greatest, not the sum.
"""

from __future__ import annotations

from collections import Counter as Tally
from typing import get_args

from sandreel_core.bus.port import Bus, StreamState
from sandreel_core.contract.runnerd import Heartbeat
from sandreel_core.contract.subjects import CMD, DEAD
from sandreel_core.health import Health
from sandreel_core.metrics import Family, Metrics
from sandreel_core.session import RUNNING, Phase
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.hold import NEARLY_FULL, Holding
from sandreel_core.spawner.pulse import Pulse
from sandreel_core.spawner.sessions import Sessions

SESSIONS = Family("sandreel_sessions", "gauge", "Sessions by phase, as the log says.", ("phase",))
BEAT_AGE = Family(
    "sandreel_heartbeat_oldest_seconds",
    "gauge",
    "Age of the oldest last heartbeat among sessions that run and were heard; 0 without any.",
)
BEATS_LATE = Family(
    "sandreel_heartbeats_late",
    "gauge",
    "Sessions that run and whose last heartbeat is older than [spawner] late_s.",
)
EXECS_OPEN = Family("sandreel_execs_open", "gauge", "Execs that run now, by the last heartbeats.")
HELD = Family("sandreel_runnerd_held", "gauge", "Recorders that hold output back because a stream is nearly full.")
SPOOL = Family("sandreel_runnerd_spool_bytes", "gauge", "Output in the spools of all recorders, not yet in NATS.")
SPOOL_GREATEST = Family(
    "sandreel_runnerd_spool_used_ratio", "gauge", "The fullest spool, as a share of its capacity (0 to 1)."
)
WINDOW = Family(
    "sandreel_runnerd_window_messages", "gauge", "Messages of all recorders that NATS has not acknowledged."
)
WINDOW_GREATEST = Family(
    "sandreel_runnerd_window_greatest_messages", "gauge", "The most unacknowledged messages that one recorder has."
)
SENT = Family(
    "sandreel_runnerd_messages_sent_total",
    "counter",
    "Messages (blocks of output and events of execs) that recorders have sent to NATS, repeats included.",
)
RESENDS = Family(
    "sandreel_runnerd_resends_total",
    "counter",
    "How often recorders have sent an exec's unacknowledged messages again: time-out, disconnection, stream full.",
)
GAPS = Family(
    "sandreel_runnerd_gaps_total",
    "counter",
    "How often an exec.gap took the place of what NATS refused for good, or lost when a stream was restored.",
)
STREAM_BYTES = Family("sandreel_stream_bytes", "gauge", "Bytes in a stream.", ("stream",))
STREAM_MAX = Family("sandreel_stream_max_bytes", "gauge", "Limit of a stream's bytes.", ("stream",))
STREAM_MESSAGES = Family("sandreel_stream_messages", "gauge", "Messages in a stream.", ("stream",))
SPARES = Family(
    "sandreel_spares", "gauge", "Containers of the warm pools ([docker] warm) that wait to become a session."
)
SPARES_MADE = Family("sandreel_spares_made_total", "counter", "Spares that were made.")
SPARES_TAKEN = Family("sandreel_spares_taken_total", "counter", "Spares that a session was to become.")
SPARES_MISSED = Family(
    "sandreel_spares_missed_total", "counter", "Sessions for which there is a pool, and it was empty."
)
SPARES_REMOVED = Family("sandreel_spares_removed_total", "counter", "Spares that were removed without having served.")
SPAWNER = (
    *(SESSIONS, BEAT_AGE, BEATS_LATE, EXECS_OPEN, HELD, SPOOL, SPOOL_GREATEST, WINDOW, WINDOW_GREATEST),
    *(SENT, RESENDS, GAPS, STREAM_BYTES, STREAM_MAX, STREAM_MESSAGES),
    *(SPARES, SPARES_MADE, SPARES_TAKEN, SPARES_MISSED, SPARES_REMOVED),
)


class SpawnerMeasures:
    """Looks at what the spawner knows whenever somebody asks for the metrics; `tick` looks at the streams."""

    def __init__(
        self,
        metrics: Metrics,
        bus: Bus,
        sessions: Sessions,
        pulse: Pulse,
        holding: Holding,
        *,
        health: Health | None,
        late_s: float,
    ) -> None:
        self._bus = bus
        self._sessions = sessions
        self._pulse = pulse
        self._holding = holding
        self._health = health
        self._late_s = late_s
        self._streams: list[StreamState] = []
        # What each session's boot had counted when it was last heard.
        self._counted: dict[Key, Heartbeat] = {}
        # Boots that were there before us: what they had counted by then is not counted again.
        self._older: frozenset[str] | None = None
        self._phases = metrics.gauge(SESSIONS)
        self._gauges = {
            family: metrics.gauge(family)
            for family in (BEAT_AGE, BEATS_LATE, EXECS_OPEN, HELD, SPOOL, SPOOL_GREATEST, WINDOW, WINDOW_GREATEST)
        }
        self._counters = {family: metrics.counter(family) for family in (SENT, RESENDS, GAPS)}
        metrics.gauge(SPARES)  # also where there is no pool: what is shown is the same everywhere
        for family in (SPARES_MADE, SPARES_TAKEN, SPARES_MISSED, SPARES_REMOVED):
            metrics.counter(family)
        self._of_streams = {f: metrics.gauge(f) for f in (STREAM_BYTES, STREAM_MAX, STREAM_MESSAGES)}
        metrics.before(self._look)

    async def tick(self) -> None:
        """Look at the streams beside those of the partitions. Begins when the table is caught up. Raises Unavailable."""
        if self._older is None:
            self._older = frozenset(entry.session.boot_id for entry in self._sessions.snapshot().values())
        self._streams = [await self._bus.state(name) for name in (CMD, DEAD)]
        self._tell_fullness()
        self._count(self._pulse.heard())

    def backend_lost(self) -> None:
        if self._health is not None:
            self._health.trouble("backend", "what runs the sessions cannot be asked")

    def backend_found(self) -> None:
        if self._health is not None:
            self._health.well("backend")

    def _tell_fullness(self) -> None:
        if self._health is None:
            return
        for state in (*self._holding.states(), *self._streams):
            if state.max_bytes > 0 and state.bytes >= NEARLY_FULL * state.max_bytes:
                self._health.trouble(f"stream {state.name}", "the stream is over 90 % full", fails_after_s=None)
            else:
                self._health.well(f"stream {state.name}")

    def _look(self) -> None:
        known = self._sessions.snapshot()
        phases = Tally(entry.session.phase for entry in known.values())
        self._phases.replace({(phase,): phases[phase] for phase in get_args(Phase) if phase != "none"})
        heard = self._pulse.heard()
        self._count(heard)
        running = {key: entry.session for key, entry in known.items() if entry.session.phase in RUNNING}
        current = [heard[key] for key in running if key in heard and heard[key][1].boot_id == running[key].boot_id]
        ages, beats = [age for age, _ in current], [beat for _, beat in current]
        shares = [beat.spool_bytes / beat.spool_capacity_bytes for beat in beats if beat.spool_capacity_bytes]
        for family, value in (
            (BEAT_AGE, round(max(ages, default=0.0), 3)),
            (BEATS_LATE, sum(age > self._late_s for age in ages)),
            (EXECS_OPEN, sum(beat.live_execs for beat in beats)),
            (HELD, sum(beat.held for beat in beats)),
            (SPOOL, sum(beat.spool_bytes for beat in beats)),
            (SPOOL_GREATEST, round(max(shares, default=0.0), 4)),
            (WINDOW, sum(beat.window_messages for beat in beats)),
            (WINDOW_GREATEST, max((beat.window_messages for beat in beats), default=0)),
        ):
            self._gauges[family].set(value)
        states = (*self._holding.states(), *self._streams)
        self._of_streams[STREAM_BYTES].replace({(state.name,): state.bytes for state in states})
        self._of_streams[STREAM_MAX].replace({(state.name,): max(0, state.max_bytes) for state in states})
        self._of_streams[STREAM_MESSAGES].replace({(state.name,): state.messages for state in states})

    def _count(self, heard: dict[Key, tuple[float, Heartbeat]]) -> None:
        """Add what recorders have counted since they were last looked at. A new boot begins at 0."""
        if self._older is None:
            return
        for key, (_, beat) in heard.items():
            before = self._counted.get(key)
            if before is None or before.boot_id != beat.boot_id:
                unheard = Heartbeat(boot_id=beat.boot_id, live_execs=0, idle_s=0)
                before = beat if beat.boot_id in self._older else unheard
            for family, value, was in (
                (SENT, beat.sent_messages, before.sent_messages),
                (RESENDS, beat.resends, before.resends),
                (GAPS, beat.gaps, before.gaps),
            ):
                self._counters[family].add(by=max(0, value - was))
        self._counted = {key: beat for key, (_, beat) in heard.items()}
