"""What a role that decides is made of: two total functions, and the one answer that a command gets.

Pure. `bus/reactor.py` is the loop that runs them: load, decide, append with the expected sequence, on
conflict load again, then acknowledge the command.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from sandreel_core.contract.message import Command, Envelope, Event
from sandreel_core.contract.session import CommandRefused, CommandSettled
from sandreel_core.errors import Refused

State = TypeVar("State")
State_co = TypeVar("State_co", covariant=True)
State_contra = TypeVar("State_contra", contravariant=True)
Context_contra = TypeVar("Context_contra", contravariant=True)


class Evolve(Protocol[State]):
    """Folds one event into the state. Total: any event is taken in any state, and never raises."""

    def __call__(self, state: State, event: Envelope, /) -> State: ...


class Decide(Protocol[State_contra, Context_contra]):
    """One command in one state gives exactly one event, or Refused. Total and pure."""

    def __call__(self, state: State_contra, command: Command, context: Context_contra, /) -> Event | Refused | None: ...


def answer(command_id: str, decision: Event | Refused | None) -> Event:
    """The one event that answers a command: `None` means that what it asked for was already so."""
    if decision is None:
        return CommandSettled(command_id=command_id)
    if isinstance(decision, Refused):
        return CommandRefused(command_id=command_id, code=decision.code, message=decision.message[:4096])
    return decision
