"""What can go wrong, said so that the caller knows what to do next.

A library's own exception never leaves the room that calls the library: it is raised again `from`
the original as one of these.
"""

from __future__ import annotations


class SandreelError(Exception):
    """The root of everything that sandreel raises on purpose."""


class Refused(SandreelError):
    """A command that was understood and turned down: becomes the event `command.refused`.

    `code` is one constant word for programs (`BAD_REQUEST`, `SESSION_NOT_FOUND`, …), `message` one
    sentence for people. Repeating the command unchanged gives the same answer.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refused) and (self.code, self.message) == (other.code, other.message)

    def __hash__(self) -> int:
        return hash((self.code, self.message))


class Conflict(SandreelError):
    """Somebody appended first. Load again, decide again, append again.

    `last_sequence` is the subject's, where the server said it: a writer that may not read needs it.
    """

    def __init__(self, message: str, last_sequence: int | None = None) -> None:
        super().__init__(message)
        self.last_sequence = last_sequence


class Unavailable(SandreelError):
    """A server or a peer cannot be reached now. Try again after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Full(Unavailable):
    """The stream has met its byte limit. Space comes back when ended execs are archived."""


class Denied(SandreelError):
    """No permission: repeating it will not help, another identity might."""


class Over(Denied):
    """What the spawner tells a runnerd whose boot is over, or was never to be: end your execs and leave. Nobody else
    raises it; a permission that NATS does not give is only Denied, and kills no agent."""


class TooLarge(SandreelError):
    """The body is over a limit that the server or the contract sets."""


class NotFound(SandreelError):
    """What was named does not exist (any more)."""


class Unserved(NotFound):
    """Nobody listens to the subject of a request: it has reached no one."""


class AlreadyExists(SandreelError):
    """What was to be made is there already and stays untouched."""


class Malformed(SandreelError):
    """Bytes or a text that do not follow the contract; names the field and the problem."""


class Misconfigured(SandreelError):
    """An operator's mistake. The message is one line that says what to do."""
