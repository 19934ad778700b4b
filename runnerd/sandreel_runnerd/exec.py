"""The life of one exec inside runnerd: which of the ways to end wins, and when it is over.

Pure: times are seconds of a monotonic clock and come in as arguments; what is to be done comes out as acts.

    starting → running → (SIGTERM → SIGKILL) → leader gone → pipes drained → closed

What asked first for the end is its reason; only a cancel, while the leader lives, wins over the others
(behaviour §2.2: "cancelled flag wins"). An exec is closed when its leader is gone, its pipes are at their end
(or 2 s have passed: a grandchild may hold them), and no kill is under way on its process group.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from sandreel_core.contract.exec import ExitReason

Why = Literal["cancelled", "stopped", "deadline", "no_output", "orphaned"]

KILL_GRACE_S = 5.0  # behaviour §1: SIGKILL grace
DRAIN_GRACE_S = 2.0  # behaviour §1: exit→close drain grace
PROBE_EVERY_S = 0.1
# How long a group may take to vanish after SIGKILL before it counts as a leftover (a process in the kernel's D state).
KILLED_GRACE_S = DRAIN_GRACE_S


class Timers(Struct, frozen=True, kw_only=True):
    """Those that were asked for; None means never."""

    timeout_s: float | None = None
    no_output_timeout_s: float | None = None
    orphan_timeout_s: float | None = None


class Send(Struct, frozen=True):
    """Send this signal to the process group."""

    signal: Literal["SIGTERM", "SIGKILL"]
    why: Why


class Probe(Struct, frozen=True):
    """The leader is gone and a kill is under way: look whether the group is gone, and say so by `group_gone`."""


class Close(Struct, frozen=True):
    """It is over: read what the pipes hold at this moment, then publish the end. Comes exactly once."""


Act = Send | Probe | Close


class Life:
    """One exec. Every method returns the acts that follow; after Close there are none."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._begun_at: float | None = None
        self._output_at = 0.0
        self._orphan_left = timers.orphan_timeout_s
        self._attended_since: float | None = None
        self._attended = False
        # When that was last said.
        self._attended_at = 0.0
        self._why: Why | None = None
        self._term_at: float | None = None
        self._kill_at: float | None = None
        self._probe_at: float | None = None
        self._group_gone = False
        self._pipes_ended = False
        self._left_at: float | None = None
        self.closed = False

    @property
    def reason(self) -> ExitReason:
        return self._why or "exited"

    @property
    def leader_lives(self) -> bool:
        """From the beginning until its exit was seen."""
        return self._left_at is None and not self.closed

    @property
    def ending(self) -> bool:
        """Whether a kill is under way."""
        return self._why is not None

    def begin(self, now: float) -> list[Act]:
        """The program runs. A cancel or stop that came before takes effect now."""
        self._begun_at = self._output_at = now
        if self._attended:
            self._attended_since = self._attended_at = now
        return self._send_term(now) if self._why is not None else []

    def cancel(self, now: float) -> list[Act]:
        return self._end("cancelled", now)

    def stop(self, now: float) -> list[Act]:
        return self._end("stopped", now)

    def output(self, now: float) -> None:
        """Something was read."""
        self._output_at = now

    def keepalive(self, now: float) -> None:
        """Its owner still wants it."""
        self._orphan_left = self._timers.orphan_timeout_s
        if self._attended_since is not None:
            self._attended_since = self._attended_at = now

    def attend(self, attended: bool, now: float) -> None:
        """Whether runnerd is connected and has read its commands to the end: the orphan timer counts only then.
        To be said now and then and before every tick; what lies between a yes and a no is not counted."""
        if not attended:
            if self._attended_since is not None and self._orphan_left is not None:
                self._orphan_left -= self._attended_at - self._attended_since
            self._attended_since = None
        elif self._attended_since is None and self._begun_at is not None:
            self._attended_since = now
        self._attended = attended
        self._attended_at = now

    def leader_left(self, now: float) -> list[Act]:
        """The leader's exit was seen."""
        if self._left_at is not None:
            return []
        self._left_at = now
        if self._term_at is not None:
            self._probe_at = now + PROBE_EVERY_S
            return [Probe()]
        return self._check(now)

    def pipes_ended(self, now: float) -> list[Act]:
        """Every output pipe is at its end."""
        self._pipes_ended = True
        return self._check(now)

    def group_gone(self, now: float) -> list[Act]:
        """Nobody is left in the process group: no SIGKILL will follow."""
        self._group_gone = True
        self._probe_at = None
        return self._check(now)

    def tick(self, now: float, *, silent: bool = True) -> list[Act]:
        """What is due. `silent` is false while output waits to be read or recorded: then nobody is to
        blame for the silence, and the no-output timer begins anew."""
        if self.closed or self._begun_at is None:
            return []
        if self._left_at is None and self._term_at is None:
            return self._tick_timers(now, silent)
        acts: list[Act] = []
        if self._term_at is not None and not self._group_gone:
            if self._kill_at is None and now >= self._term_at + KILL_GRACE_S:
                self._kill_at = now
                acts.append(Send("SIGKILL", self._why or "cancelled"))
            if self._probe_at is not None and now >= self._probe_at:
                self._probe_at = now + PROBE_EVERY_S
                acts.append(Probe())
        return acts + self._check(now)

    def next_at(self) -> float | None:
        """When `tick` is due, as far as is known now."""
        if self.closed or self._begun_at is None:
            return None
        times: list[float] = []
        if self._left_at is None and self._term_at is None:
            times += [at for at, _ in self._timers_due()]
        if self._term_at is not None and not self._group_gone:
            if self._kill_at is None:
                times.append(self._term_at + KILL_GRACE_S)
            elif self._left_at is not None:
                times.append(max(self._kill_at, self._left_at) + KILLED_GRACE_S)
            if self._probe_at is not None:
                times.append(self._probe_at)
        if self._left_at is not None and not self._pipes_ended and not self._ladder_active(self._left_at):
            times.append(self._left_at + DRAIN_GRACE_S)
        return min(times, default=None)

    def _end(self, why: Why, now: float) -> list[Act]:
        if not self.leader_lives:
            return []
        if self._why is None:
            self._why = why
            return self._send_term(now) if self._begun_at is not None else []
        if why == "cancelled":
            self._why = why
        return []

    def _send_term(self, now: float) -> list[Act]:
        self._term_at = now
        return [Send("SIGTERM", self._why or "cancelled")]

    def _timers_due(self) -> list[tuple[float, Why]]:
        due: list[tuple[float, Why]] = []
        begun_at = self._begun_at or 0.0
        if self._timers.timeout_s is not None:
            due.append((begun_at + self._timers.timeout_s, "deadline"))
        if self._timers.no_output_timeout_s is not None:
            due.append((self._output_at + self._timers.no_output_timeout_s, "no_output"))
        if self._orphan_left is not None and self._attended_since is not None:
            due.append((self._attended_since + self._orphan_left, "orphaned"))
        return due

    def _tick_timers(self, now: float, silent: bool) -> list[Act]:
        if not silent:
            self._output_at = now
        due = [(at, why) for at, why in self._timers_due() if at <= now]
        return self._end(min(due)[1], now) if due else []

    def _ladder_active(self, now: float) -> bool:
        if self._term_at is None or self._group_gone:
            return False
        left_at = self._left_at if self._left_at is not None else now
        return self._kill_at is None or now < max(self._kill_at, left_at) + KILLED_GRACE_S

    def _check(self, now: float) -> list[Act]:
        if self.closed or self._left_at is None or self._ladder_active(now):
            return []
        if not self._pipes_ended and now < self._left_at + DRAIN_GRACE_S:
            return []
        self.closed = True
        return [Close()]
