"""What sandreel needs of a message bus. One conformance suite runs over every implementation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from sandreel_core.errors import SandreelError, TooLarge

# nats-server's own limit of an atomic batch.
MAX_BATCH = 1000
# Of one `serve`, at a time; who asks while they are all busy waits.
MAX_HANDLERS = 64


class Stored(Struct, frozen=True):
    """One message as a stream keeps it. `time_ns` is the server's timestamp."""

    subject: str
    sequence: int
    body: bytes
    time_ns: int


class CaughtUp(Struct, frozen=True):
    """Everything that was stored when the reader began has been yielded; live messages follow."""

    sequence: int


class Missing(Struct, frozen=True):
    """The reader asked for these sequences, and the stream keeps them no more."""

    from_sequence: int
    to_sequence: int


Item = list[Stored] | CaughtUp | Missing


class StreamState(Struct, frozen=True):
    """`epoch` is the one written into the stream's metadata when it was created or restored; `partitions` (only of CMD)
    how many REEL streams the installation was made with, None where that was not written down; `restored_at` (only of
    CMD) where it ended when it was last brought back from a backup, together with the REELs of the same epoch."""

    name: str
    epoch: str
    first_sequence: int
    last_sequence: int
    messages: int
    bytes: int
    max_bytes: int
    partitions: int | None = None
    restored_at: int | None = None
    # (epoch, sequence), newest first: up to there this stream is the one that had that epoch, before it was restored.
    ancestors: tuple[tuple[str, int], ...] = ()


class Work(Struct, frozen=True):
    """A durable consumer with explicit acknowledgement, as data. `ensure` makes it, `work` reads it."""

    stream: str
    name: str
    filters: tuple[str, ...]
    ack_wait_s: float = 30.0
    max_ack_pending: int = 256


class Stream(Struct, frozen=True):
    """A stream, as data. `per_subject` 1 with `discard_new_per_subject` refuses a repeated subject; `batches`: `append_all`
    may store several messages at once there."""

    name: str
    subjects: tuple[str, ...]
    max_bytes: int
    max_age_s: float = 0
    per_subject: int = 0
    discard_new_per_subject: bool = False
    replicas: int = 1
    max_consumers: int = 100_000
    duplicate_window_s: float = 120
    memory: bool = False
    batches: bool = False
    metadata: dict[str, str] = {}


def check_batch(bodies: Sequence[bytes], max_payload: int) -> None:
    """Raises ValueError for none and for more than `MAX_BATCH`, TooLarge for a body over the limit."""
    if not 1 <= len(bodies) <= MAX_BATCH:
        raise ValueError(f"a batch has 1 to {MAX_BATCH} messages, not {len(bodies)}")
    for body in bodies:
        if len(body) > max_payload:
            raise TooLarge(f"{len(body)} bytes are over the server's limit of {max_payload}")


def partitions_of(metadata: Mapping[str, str]) -> int | None:
    """What a stream's metadata says of `StreamState.partitions`."""
    return _number(metadata, "partitions")


def ancestors_of(metadata: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """What a stream's metadata says of `StreamState.ancestors`; of an older one never more than of a younger one, which
    is what it came back through."""
    found: list[tuple[str, int]] = []
    for word in reversed(metadata.get("ancestors", "").split()):
        epoch, _, sequence = word.partition(":")
        if epoch and sequence.isdecimal():
            found.append((epoch, min(int(sequence), found[-1][1] if found else int(sequence))))
    return tuple(found)


def descended(metadata: Mapping[str, str], last_sequence: int) -> dict[str, str]:
    """The metadata that says that a stream of a new epoch is, up to here, the one whose metadata these are."""
    epoch = metadata.get("epoch", "")
    return {"ancestors": f"{metadata.get('ancestors', '')} {epoch}:{last_sequence}".strip()} if epoch else {}


def restored_at_of(metadata: Mapping[str, str]) -> int | None:
    """What a stream's metadata says of `StreamState.restored_at`."""
    return _number(metadata, "restored_at")


def _number(metadata: Mapping[str, str], name: str) -> int | None:
    said = metadata.get(name, "")
    return int(said) if said.isdecimal() else None


class Delivery(Protocol):
    """One message of a work consumer. Exactly one of ack, nak and term is called; `attempts` counts from 1."""

    stored: Stored
    attempts: int

    async def ack(self) -> None: ...
    async def nak(self, delay_s: float) -> None: ...
    async def term(self) -> None: ...


class Channel(Protocol):
    """Pipelined publishing. Nothing is promised about a message until its acknowledgement has come."""

    async def send(self, subject: str, body: bytes, token: int) -> None:
        """Hand one message to the connection. Raises Unavailable while there is none, TooLarge at once."""


# Called once per answer with the token and the stored sequence, or with what the server said instead.
# No call at all may come: the caller keeps its own time-out.
OnAck = Callable[[int, int | SandreelError], None]
Handler = Callable[[str, bytes], Awaitable[bytes]]
Listener = Callable[[str, bytes], None]


class Bus(Protocol):
    """Every method raises Unavailable when the server cannot be reached in time; whether a message was
    stored is then unknown. The connection itself comes back by itself, for ever, with jitter."""

    @property
    def connected(self) -> bool: ...

    @property
    def generation(self) -> int:
        """Grows by one with every (re)connection."""

    @property
    def max_payload(self) -> int:
        """The largest body in bytes that the server takes."""

    async def wait_connected(self, after_generation: int = 0) -> int:
        """The current generation, as soon as it is connected and larger than the one given."""

    async def ensure(self, streams: Sequence[Stream], works: Sequence[Work] = ()) -> None:
        """Make or update them. Idempotent, also when several roles do it at once. The metadata that a stream has
        already stays. Raises Misconfigured when what is there cannot be changed
        into what is asked for."""

    async def renew_epoch(self, stream: str, epoch: str) -> None:
        """Write another epoch into the stream: it was brought back from a copy, so that no cursor of before may be
        taken for one of now. Raises NotFound."""

    async def append(
        self, subject: str, body: bytes, *, expected: int | None = None, message_id: str | None = None
    ) -> int:
        """Store and return the sequence.

        expected    last sequence *of this subject*, 0 for none; raises Conflict when it is another
        message_id  the server drops a repeat within its duplicate window and returns the first one's sequence
        Raises AlreadyExists when the stream keeps one message a subject and has it; TooLarge; Denied; Full
        (a kind of Unavailable) when the stream's byte limit is met.
        """

    async def append_all(self, subject: str, bodies: Sequence[bytes], *, expected: int) -> int:
        """Store 1 to `MAX_BATCH` messages behind the last sequence *of this subject* and return the sequence of the last one. They
        have consecutive sequences, and as long as the server lives either all of them are stored or none; of a server that is killed
        while it stores them the first ones may be.

        Raises as `append` does; Misconfigured when the stream is not one of `batches`.
        """

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The newest message of a subject (wildcards allowed)."""

    async def next(self, stream: str, subject: str, *, after: int = 0) -> Stored | None:
        """The first message of a subject (wildcards allowed) behind a sequence."""

    async def get(self, stream: str, sequence: int) -> Stored | None: ...

    async def sequence_at(self, stream: str, time_ns: int) -> int:
        """The sequence up to which the stream was written by this server time (nanoseconds since 1970), inclusive: 0
        when it was empty then. Costs the same for any length. Raises NotFound."""

    async def state(self, stream: str) -> StreamState:
        """Raises NotFound."""

    async def subjects(self, stream: str, filter: str) -> dict[str, int]:
        """Every subject that matches, with its number of messages. Pages through any number of them."""

    async def purge(self, stream: str, subject: str, *, keep: int = 0, up_to: int | None = None) -> int:
        """Remove the subject's messages but the newest `keep`, or those before sequence `up_to`; how many went."""

    def follow(
        self, stream: str, filters: Sequence[str], *, after: int = 0, live: bool = True
    ) -> AsyncGenerator[Item, None]:
        """Messages behind sequence `after`, in order, in batches, without a seam over reconnects.

        Yields Missing first when the stream begins later than `after + 1`; then batches; then exactly
        one CaughtUp; then, if `live`, batches for ever, else it ends. A slow caller costs a few MB and loses
        nothing. Close it (`contextlib.aclosing`). Raises NotFound when there is no such stream, Malformed when it is
        seen, at the latest after a reconnect, that the stream was restored: another epoch, or an end before what was read.
        """

    def work(self, work: Work) -> AsyncGenerator[Delivery, None]:
        """Deliveries of a durable consumer, for ever; several processes may share one. It is made again
        when it has vanished."""

    async def make_feed(self, stream: str, name: str, filters: Sequence[str], *, after: int) -> None:
        """A consumer in memory without acknowledgements, from which somebody else may pull by its name.
        One of the same name is replaced. It vanishes with the server, or after an hour without a reader."""

    async def drop_feed(self, stream: str, name: str) -> None: ...

    def feed(self, stream: str, name: str) -> AsyncGenerator[list[Stored], None]:
        """Batches (never empty) of a feed, live. Raises NotFound when it does not exist (any more), or when a
        delivery may have been lost (a disconnect): have it made again behind the last sequence handled."""

    def channel(self, on_ack: OnAck) -> AbstractAsyncContextManager[Channel]:
        """A pipelined publisher; `on_ack` runs in the event loop and must not block."""

    async def publish(self, subject: str, body: bytes) -> None:
        """To whoever listens now; stored nowhere, lost while disconnected."""

    async def request(self, subject: str, body: bytes, *, timeout_s: float = 5.0) -> bytes:
        """The first answer. Raises Unserved when nobody serves the subject, Unavailable on time-out, and what
        the handler raised (Refused, NotFound, Denied, Malformed, Unavailable …) with its message."""

    def serve(
        self, subject: str, handler: Handler, *, group: str = "", at_once: int = MAX_HANDLERS
    ) -> AbstractAsyncContextManager[None]:
        """Answer requests while the context is open. Of those in one `group` one answers. Handlers run
        concurrently (so many `at_once`, 1 to 1024: more for one that waits). Whoever asked is told of an answer over `max_payload` as
        TooLarge."""

    def listen(self, subject: str, listener: Listener) -> AbstractAsyncContextManager[None]:
        """Hear what is published (heartbeats) while the context is open. May miss messages."""

    async def close(self) -> None: ...
