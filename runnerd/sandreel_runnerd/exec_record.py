"""The record of one exec: numbers, seals and hands on its events. Implements `Recorder`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from sandreel_core import clock
from sandreel_core.bus.backoff import backoff_s
from sandreel_core.contract import exec as c
from sandreel_core.contract.bootstrap import ExecHead
from sandreel_core.contract.codec import decode_event, encode, seal
from sandreel_core.contract.message import Envelope
from sandreel_core.errors import Conflict, Denied, Refused, SandreelError, TooLarge, Unavailable
from sandreel_core.log import Log
from sandreel_runnerd.spool import Record

if TYPE_CHECKING:
    from sandreel_runnerd.outbox import Outbox

# What a server's payload must hold besides a block: headers, and a later ordinal (`renumber`), which are some hundred bytes.
_MARGIN_BYTES = 4096
# However small the payload is: blocks are not halved for ever.
_LEAST_BYTES = 64 * 1024


class Concluded(NamedTuple):
    """The end of an exec as it was acknowledged, for a log that comes back without it (`Outbox.remember`)."""

    exec_id: str
    n: int
    body: bytes
    cause: dict[str, Any]


class ExecRecord:
    """Made by `Outbox.recorder`."""

    def __init__(self, outbox: Outbox, exec_id: str, owner: int, *, next_n: int = 2) -> None:
        self.exec_id = exec_id
        self.owner = owner
        self.accepted = False
        self._outbox = outbox
        self._subject = outbox.subjects.exec(exec_id)
        self._lane = outbox.pipeline.lane(self._subject, self, next_n=next_n)
        self._spooled = 0
        self._turn = asyncio.Lock()  # fair: who comes first is recorded first
        self._failure: Denied | None = None
        # What events say of the command that started it, and what those say that nothing else has caused.
        self._cause: dict[str, Any] = {}
        self._correlation_id: str | None = None
        self._log = Log("outbox")

    async def accept(self, accepted: c.Accepted, *, command: Envelope) -> None:
        """See `Recorder.accept`."""
        self._cause = _cause(command)
        self._correlation_id = self._cause["correlationid"]
        try:
            await self._accept(encode(self._seal(accepted, 1, command)), command.id)
        except (SandreelError, asyncio.CancelledError):
            self._close()
            raise
        self.accepted = True

    async def record(self, event: c.ExecEvent, *, command: Envelope | None = None) -> None:
        """See `Recorder.record`."""
        async with self._turn:
            await self._take(event, command, output=isinstance(event, c.Output))

    async def conclude(self, exited: c.Exited) -> None:
        """See `Recorder.conclude`."""
        async with self._turn:
            while not self._is_acknowledged():
                await self._outbox.pipeline.changed()
            n = self._lane.next_n
            body = encode(self._seal(exited, n, None))
            self._lane.put(body, n, keep=True)
            while not self._is_acknowledged():
                await self._outbox.pipeline.changed()
            n = self._lane.next_n - 1  # a gap may have moved it
        self._close()
        self._outbox.remember(Concluded(self.exec_id, n, self.renumber(body, n), self._cause))

    def revive(self, concluded: Concluded, head: ExecHead) -> None:
        """While greeting: the log came back without the end that it had acknowledged. Made with `next_n` of the end."""
        self.accepted = True
        self._cause, self._correlation_id = concluded.cause, concluded.cause["correlationid"]
        self._lane.put(concluded.body, concluded.n, keep=True)
        self.reconcile(head)

    async def see_out(self) -> None:
        """Until the end of a revived one is acknowledged again, or taken from somebody else."""
        try:
            while not self._is_acknowledged():
                await self._outbox.pipeline.changed()
        except Denied as error:
            self._log.info("an end was not stored again", exec=self.exec_id, why=str(error))
        self._close()

    def unspool(self, body: bytes, n: int) -> bool:
        """The oldest spooled event goes into the window. False while that has no room."""
        if not self._lane.has_room:
            return False
        self._lane.put(body, n)
        self._spooled -= 1
        return True

    def disputes(self, head: ExecHead) -> bool:
        """The log says that it does not have what it acknowledged."""
        return head.last_n + 1 < self._first_n

    def reconcile(self, head: ExecHead) -> None:
        """What the log says of this exec, before anything is sent again."""
        if head.boot_id is not None and head.boot_id != self._outbox.boot_id:
            self.fail(Denied(f"DUPLICATE_EXEC: boot {head.boot_id} has accepted exec {self.exec_id}"))
        elif head.ended and head.last_n + 1 < self._lane.next_n:
            self.fail(Denied(f"exec {self.exec_id} was closed by somebody else"))
        else:
            self._lane.reconcile(head.last_n, "the stream came back without them")

    def fail(self, failure: Denied) -> None:
        """Take no more; everything that waits raises."""
        self._failure = failure
        self._close()

    def gap(self, n: int, from_n: int, why: str) -> bytes:
        """`Author`: an event that explains missing ordinals."""
        envelope = self._seal(c.Gap(from_n=from_n, to_n=n - 1, why=why), n, None)
        if from_n == 1:  # it stands for the acceptance too, which is the command's outcome
            envelope = msgspec.structs.replace(envelope, **self._cause)
        return encode(envelope)

    def renumber(self, body: bytes, n: int) -> bytes:
        """`Author`: the same event under another ordinal."""
        event = decode_event(self._subject, body)
        return encode(msgspec.structs.replace(event, n=n, id=f"{self.exec_id}-{n}"))

    @property
    def _first_n(self) -> int:
        window = self._lane.window
        return window.entries[0].n if window.entries else window.next_n

    async def _accept(self, body: bytes, command_id: str) -> None:
        uncertain = False
        failures = 0
        while True:
            try:
                await self._outbox.bus.append(self._subject, body, expected=0)
                return
            except Conflict:
                if not uncertain or not await self._is_mine(command_id):
                    raise Refused("DUPLICATE_EXEC", f"exec id {self.exec_id} was used before") from None
                return
            except Unavailable:
                uncertain = True  # it may have been stored
            await asyncio.sleep(backoff_s(failures))
            failures += 1

    async def _is_mine(self, command_id: str) -> bool:
        """After an append that nobody answered: was it mine that was stored? There is nothing behind it then."""
        head = (await self._outbox.ask_log([self.exec_id])).execs.get(self.exec_id, ExecHead())
        return (head.boot_id, head.started_by, head.last_n) == (self._outbox.boot_id, command_id, 1)

    async def _take(self, event: c.ExecEvent, command: Envelope | None, *, output: bool) -> None:
        outbox, lane = self._outbox, self._lane
        n, body = 0, b""
        while True:
            self._check()
            if n != lane.next_n + self._spooled:
                n = lane.next_n + self._spooled
                body = encode(self._seal(event, n, command))
                if output and len(body) > max(outbox.bus.max_payload - _MARGIN_BYTES, _LEAST_BYTES):
                    raise TooLarge(f"a block of {len(body)} bytes")
            held = outbox.held and (output or self._spooled > 0)
            if not self._spooled and not held and lane.has_room:
                lane.put(body, n)
                return
            if (held or not outbox.pipeline.is_open) and outbox.spool.fits(body):
                self._spooled += 1
                outbox.spooled()
                try:
                    await outbox.spool.append(Record(self.owner, n, body))
                except Unavailable as error:
                    self._spooled -= 1
                    self._log.error("the spool cannot be used any more", why=str(error))
                    continue
                return
            await outbox.pipeline.changed()

    def _is_acknowledged(self) -> bool:
        self._check()
        return not self._spooled and self._lane.is_empty

    def _check(self) -> None:
        if self._failure is not None:
            raise Denied(str(self._failure))

    def _close(self) -> None:
        self._failure = self._failure or Denied(f"the record of exec {self.exec_id} is closed")
        self._outbox.pipeline.close(self._lane)
        self._outbox.remove(self)

    def _seal(self, event: c.ExecEvent, n: int, command: Envelope | None) -> Envelope:
        attributes: dict[str, Any] = {}
        if command is not None:
            attributes = _cause(command)
        elif not isinstance(event, c.Output):
            attributes = {"correlationid": self._correlation_id}
        return seal(
            event,
            id=f"{self.exec_id}-{n}",
            source=self._outbox.source,
            subject=self._subject,
            time=clock.now(),
            n=n,
            **attributes,
        )


def _cause(command: Envelope) -> dict[str, Any]:
    return {
        "causationid": command.id,
        "correlationid": command.correlationid or command.id,
        "actor": command.actor,
        "traceparent": command.traceparent,
    }
