"""What stands in the log of one exec, and who writes it: for tests of the pipeline and of the readers."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime

import msgspec

from sandreel_core.bus.execs import ExecItem, Recorded, follow_exec
from sandreel_core.bus.port import Bus, CaughtUp, Stream
from sandreel_core.contract import exec as c
from sandreel_core.contract.bootstrap import AskLog, ExecHead, LogHead
from sandreel_core.contract.codec import decode_event, encode, seal
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.ordinals import Ordinals

SUBJECTS = SessionSubjects("acme", "s1")
EPOCH = "ep0"
AT = datetime(2026, 1, 1, tzinfo=UTC)
REEL = Stream(SUBJECTS.stream, ("evt.0.>",), max_bytes=1 << 30, metadata={"epoch": EPOCH})
END = c.Exited(exit_code=0, reason="exited", duration_ms=1)


def line(number: int, size: int = 0) -> c.Output:
    """A block of one line that says its number."""
    return c.Output(stream="stdout", line=number, count=1, text=f"line {number}".ljust(size, ".") + "\n", eol=True)


class Writer:
    """Seals the events of one exec; an `Author`."""

    def __init__(self, exec_id: str = "e1", subjects: SessionSubjects = SUBJECTS) -> None:
        self.exec_id = exec_id
        self.subject = subjects.exec(exec_id)

    def body(self, event: c.ExecEvent, n: int) -> bytes:
        sealed = seal(event, id=f"{self.exec_id}-{n}", source="/runnerd/b1", subject=self.subject, time=AT, n=n)
        return encode(sealed)

    def gap(self, n: int, from_n: int, why: str) -> bytes:
        return self.body(c.Gap(from_n=from_n, to_n=n - 1, why=why), n)

    def renumber(self, body: bytes, n: int) -> bytes:
        event = decode_event(self.subject, body)
        return encode(msgspec.structs.replace(event, n=n, id=f"{self.exec_id}-{n}"))


async def read(
    bus: Bus,
    exec_id: str = "e1",
    *,
    after: Cursor | None = None,
    live: bool = False,
    subjects: SessionSubjects = SUBJECTS,
) -> list[ExecItem]:
    """Everything that a reader is given: up to the end of what is stored, or of the exec if `live`."""
    async with aclosing(follow_exec(bus, subjects, exec_id, after=after, live=live)) as items:
        return [item async for item in items]


def events(items: list[ExecItem]) -> list[Envelope]:
    return [item.event for item in items if isinstance(item, Recorded)]


def lines(items: list[ExecItem]) -> list[int]:
    """The numbers of the lines that were read, in order."""
    return [event.data.line for event in events(items) if isinstance(event.data, c.Output)]


async def heads(bus: Bus, body: bytes, epoch: str = EPOCH) -> bytes:
    """What the spawner answers to `log`, folded from the stream itself."""
    ask = msgspec.json.decode(body, type=AskLog)
    found: dict[str, ExecHead] = {}
    for exec_id in ask.execs:
        subject, place, boot_id, started_by = SUBJECTS.exec(exec_id), Ordinals(), None, None
        async with aclosing(bus.follow(SUBJECTS.stream, [subject], live=False)) as items:
            async for item in items:
                for stored in item if isinstance(item, list) else ():
                    event = decode_event(subject, stored.body)
                    if place.accept(event) and isinstance(event.data, c.Accepted):
                        boot_id, started_by = event.data.boot_id, event.causationid
        found[exec_id] = ExecHead(boot_id=boot_id, started_by=started_by, last_n=place.last, ended=place.ended)
    return msgspec.json.encode(LogHead(epoch=epoch, commands_last=0, execs=found))


__all__ = ["AT", "END", "EPOCH", "REEL", "SUBJECTS", "CaughtUp", "Writer", "events", "heads", "line", "lines", "read"]
