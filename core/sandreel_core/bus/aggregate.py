"""What the reactor is told about a role's aggregate, and what it tells the role. Pure data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sandreel_core.bus.port import Stored
from sandreel_core.contract.message import Command, Envelope
from sandreel_core.contract.subjects import CommandSubject
from sandreel_core.decider import Decide, Evolve
from sandreel_core.errors import Refused

State = TypeVar("State")
Context = TypeVar("Context")


@dataclass(frozen=True, slots=True)
class Aggregate(Generic[State, Context]):
    """What a role decides on, as data.

    subject   where the answer to a command stands
    keyed     the same where that depends on what is asked; `subject` is then for a command that cannot be read
    context   what a decision depends on beside state and command (the time, limits); it may have to be read, and raises Unavailable
    mine      whether the role answers this command in this state; what is not its own is only acknowledged
    """

    initial: State
    evolve: Evolve[State]
    decide: Decide[State, Context]
    subject: Callable[[CommandSubject], str]
    context: Callable[[Stored], Awaitable[Context]]
    mine: Callable[[State, Stored], bool] = lambda state, stored: True
    keyed: Callable[[CommandSubject, Command], str] | None = None


@dataclass(frozen=True, slots=True)
class Decision(Generic[State]):
    """One command, the state that it met, and the event that answers it. `command` is None when its body could
    not be read; `sequence` is 0 until the event is stored."""

    where: CommandSubject
    command: Envelope | None
    state: State
    event: Envelope
    sequence: int = 0


# Asked before an event that is no refusal is appended, again after every conflict: may still refuse (quotas).
Admit = Callable[[Decision[State]], Awaitable[Refused | None]]
# Told after the event is stored; not told again when a command is delivered twice.
Decided = Callable[[Decision[State]], Awaitable[None]]
# Asked of a command that is older than the role's process: whether somebody else has answered it, in the role's absence, on another subject.
Elsewhere = Callable[[CommandSubject], Awaitable[bool]]
