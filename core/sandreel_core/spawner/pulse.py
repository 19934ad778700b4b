"""Heartbeats: who was heard, and since when we have been listening without an interruption."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from sandreel_core.bus.port import Bus
from sandreel_core.contract.runnerd import Heartbeat
from sandreel_core.spawner.backend import Key
from sandreel_core.spawner.reconcile import Beat

KEPT_S = 600.0


class Pulse:
    """Fed by the bus. `monotonic` in seconds."""

    def __init__(self, bus: Bus, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._monotonic = monotonic
        self._heard: dict[Key, tuple[float, Heartbeat]] = {}
        self._since = monotonic()
        self._generation = bus.generation

    def hear(self, subject: str, body: bytes) -> None:
        """Take one heartbeat; what is none is dropped."""
        tokens = subject.split(".")
        if len(tokens) != 3:
            return
        try:
            self._heard[Key(tokens[1], tokens[2])] = (self._monotonic(), msgspec.json.decode(body, type=Heartbeat))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return

    def tick(self) -> float:
        """For how many seconds we have been listening; begins anew with every reconnect. Asked once a second."""
        moment = self._monotonic()
        if not self._bus.connected or self._bus.generation != self._generation:
            self._generation = self._bus.generation
            self._since = moment
        for key in [key for key, (at, _) in self._heard.items() if moment - at > KEPT_S]:
            del self._heard[key]
        return moment - self._since

    def heard(self) -> dict[Key, tuple[float, Heartbeat]]:
        """The last heartbeat of everybody who was heard lately, with its age in seconds."""
        moment = self._monotonic()
        return {key: (moment - at, beat) for key, (at, beat) in self._heard.items()}

    def beats(self) -> dict[Key, Beat]:
        moment = self._monotonic()
        return {
            key: Beat(beat.boot_id, moment - at, beat.live_execs, beat.idle_s + moment - at)
            for key, (at, beat) in self._heard.items()
        }
