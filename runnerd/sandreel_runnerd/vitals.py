"""How this boot is doing: what its heartbeats say, and its answer when it is asked."""

from __future__ import annotations

import os
import time

from sandreel_core import __version__
from sandreel_core.bus.port import Bus
from sandreel_core.clock import now
from sandreel_core.contract.boot import BootSettings
from sandreel_core.contract.runnerd import Health, Heartbeat
from sandreel_runnerd import init
from sandreel_runnerd.activity import Activity
from sandreel_runnerd.execs import Execs
from sandreel_runnerd.feed import Feed
from sandreel_runnerd.outbox import Outbox


class Vitals:
    """One per boot; `attach` comes before anything is read."""

    def __init__(self, bus: Bus, settings: BootSettings, activity: Activity) -> None:
        self._bus = bus
        self._settings = settings
        self._activity = activity
        self._booted_at = now()
        # The connection's generation, and when it was first seen.
        self._connected_since = (bus.generation, time.monotonic())
        self._outbox: Outbox
        self._execs: Execs
        self._feed: Feed

    def attach(self, outbox: Outbox, execs: Execs, feed: Feed) -> None:
        """The parts that are read."""
        self._outbox, self._execs, self._feed = outbox, execs, feed

    def look(self) -> None:
        """With every heartbeat: whether the connection is another one."""
        if self._connected_since[0] != self._bus.generation:
            self._connected_since = (self._bus.generation, time.monotonic())

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(
            boot_id=self._settings.boot_id,
            live_execs=len(self._execs.live),
            idle_s=self._activity.idle_s,
            spool_bytes=self._outbox.spool_bytes,
            held=self._outbox.held,
            commands_handled=self._feed.handled,
            spool_capacity_bytes=self._settings.spool_bytes,
            window_messages=self._outbox.window_messages,
            sent_messages=self._outbox.pipeline.sent,
            resends=self._outbox.pipeline.resends,
            gaps=self._outbox.pipeline.gaps,
        )

    def health(self) -> Health:
        return Health(
            boot_id=self._settings.boot_id,
            booted_at=self._booted_at,
            runnerd_version=__version__,
            live_execs=self._execs.live,
            idle_s=self._activity.idle_s,
            spool_bytes=self._outbox.spool_bytes,
            spool_capacity_bytes=self._settings.spool_bytes,
            window_messages=self._outbox.window_messages,
            held=self._outbox.held,
            draining=self._feed.draining,
            connected_s=time.monotonic() - self._connected_since[1],
            rss_bytes=_rss_bytes(),
            pid1=init.is_init(),
        )


def _rss_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - one read of a few bytes of /proc
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
