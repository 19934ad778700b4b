"""What a reactor keeps of the aggregates that it decides on, so that not every command reads its aggregate anew."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Generic, TypeVar

from sandreel_core.bus.aggregate import Aggregate
from sandreel_core.bus.loading import Loaded, load
from sandreel_core.bus.port import Bus
from sandreel_core.contract.message import Envelope

State = TypeVar("State")

_REMEMBERED = 512


class Known(Generic[State]):
    """The latest 512 of them. What is known may be old: then the append, which every answer is, meets a conflict."""

    def __init__(self, bus: Bus, aggregate: Aggregate[State, Any]) -> None:
        self._bus = bus
        self._aggregate = aggregate
        self._known: OrderedDict[str, Loaded[State]] = OrderedDict()

    async def load(self, subject: str) -> Loaded[State]:
        """What is known of it, else all that its subject holds. Raises Unavailable, NotFound (no such stream)."""
        loaded = self._known.get(subject)
        if loaded is None:
            loaded = await load(self._bus, subject, self._aggregate.initial, self._aggregate.evolve)
            self._keep(subject, loaded)
        return loaded

    async def catch_up(self, subject: str, known: Loaded[State]) -> None:
        """Read what somebody else has appended; all of it where that is not behind what is known (a restored stream)."""
        self.forget(subject)
        newer = await load(self._bus, subject, self._aggregate.initial, self._aggregate.evolve, known=known)
        if newer.revision > known.revision:
            self._keep(subject, newer)

    def add(self, subject: str, loaded: Loaded[State], event: Envelope, sequence: int) -> None:
        """`event` was appended right behind what had been loaded."""
        answers = loaded.answers if event.causationid is None else loaded.answers | {event.causationid}
        state = self._aggregate.evolve(loaded.state, event)
        self._keep(subject, Loaded(state, sequence, answers, loaded.skipped))

    def learn(self, subject: str, event: Envelope, expected: int, sequence: int) -> None:
        """See `Reactor.learn`."""
        loaded = self._known.get(subject)
        if loaded is not None and loaded.revision == expected:
            self.add(subject, loaded, event, sequence)

    def forget(self, subject: str) -> None:
        self._known.pop(subject, None)

    def _keep(self, subject: str, loaded: Loaded[State]) -> None:
        self._known[subject] = loaded
        self._known.move_to_end(subject)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
