"""One try of a turn, as its log has prepared it: everything that its names and commands are made from. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from sandreel_bridge.gateway.port import key_name
from sandreel_bridge.journal import Name
from sandreel_core.contract.turn import TurnPreparing, TurnRequested
from sandreel_core.ids import uuid7
from sandreel_core.turn import Turn


@dataclass(frozen=True, slots=True)
class Attempt:
    """`id` and `at`: of its `turn.preparing`. `keys`: the names of all gateway keys of the turn, its own the last."""

    name: Name
    request: TurnRequested
    preparing: TurnPreparing
    id: str
    at: datetime
    correlation_id: str | None
    keys: tuple[str, ...]

    @classmethod
    def of(cls, name: Name, turn: Turn) -> Attempt:
        """The newest one. Raises LookupError for a turn that is not prepared, which `process` asks nothing of."""
        if turn.request is None or turn.preparing is None or turn.prepared_at is None:
            raise LookupError(f"turn {name} is not prepared")
        correlation = turn.asked.correlation_id or turn.asked.command_id if turn.asked is not None else None
        keys = key_names(name, turn)
        return cls(name, turn.request, turn.preparing, turn.prepared_id, turn.prepared_at, correlation, keys)

    @property
    def exec(self) -> str:
        return self.preparing.exec

    @property
    def key(self) -> str:
        """The name of its gateway key."""
        return self.keys[-1]

    @property
    def start_id(self) -> str:
        """Of its `exec.start`."""
        return command_id(self.at, "exec.start", str(self.name), self.id)

    def input_id(self, offset: int) -> str:
        """Of the command that writes its first input from there on."""
        return command_id(self.at, "stdin", str(self.name), self.exec, str(offset))


def key_names(name: Name, turn: Turn) -> tuple[str, ...]:
    """Of every gateway key that may have been made for the turn."""
    return tuple(key_name(name.org, name.session, life, name.turn, number) for life, number in turn.keys)


def command_id(at: datetime, *seed: str) -> str:
    """A command's id that whoever sends it again finds again: from the time of an event of the log, by which it is told whether
    the command is stale, and from what it is for."""
    return uuid7(int(at.timestamp() * 1000), hashlib.sha256("\0".join(seed).encode()).digest()[:10])


def message_uuid(seed: str) -> str:
    """Of a message to a program that takes each once: the same for the same seed."""
    return uuid7(0, hashlib.sha256(f"message {seed}".encode()).digest()[:10])
