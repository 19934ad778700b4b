"""The state of one aggregate, folded from its subject, with the revision that the next append expects."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

from sandreel_core.bus.port import Bus
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.subjects import stream_of
from sandreel_core.decider import Evolve
from sandreel_core.errors import Malformed
from sandreel_core.log import Log

State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[State]):
    """`revision` is the last sequence of the subject, 0 for none. `answers` holds the ids of the commands that led to an event: not the
    events, for those of a turn of weeks hold all that was said to it. `skipped` counts bodies that are no events or stand on a wrong
    subject."""

    state: State
    revision: int = 0
    answers: frozenset[str] = frozenset()
    skipped: int = 0


async def load(
    bus: Bus, subject: str, initial: State, evolve: Evolve[State], *, known: Loaded[State] | None = None
) -> Loaded[State]:
    """Read the subject to its end, from what is `known` of it on. Raises Unavailable, NotFound (no such stream)."""
    known = known or Loaded(initial)
    state, revision, skipped = known.state, known.revision, known.skipped
    answers = set(known.answers)
    async with aclosing(bus.follow(stream_of(subject), [subject], after=revision, live=False)) as items:
        async for item in items:
            for stored in item if isinstance(item, list) else ():
                revision = stored.sequence
                try:
                    event = decode_event(subject, stored.body)
                except Malformed as error:
                    skipped += 1
                    Log("bus.loading").warning(
                        "skipped a body that is no event", subject=subject, sequence=revision, problem=str(error)
                    )
                    continue
                state = evolve(state, event)
                if event.causationid is not None:
                    answers.add(event.causationid)
    return Loaded(state, revision, frozenset(answers), skipped)
