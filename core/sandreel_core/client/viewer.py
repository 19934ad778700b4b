"""One exec as a viewer sees it: the events that count, typed, with the cursor to go on from."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from sandreel_core.bus.port import Bus, Stored
from sandreel_core.bus.port import CaughtUp as StreamCaughtUp
from sandreel_core.client.items import CaughtUp, Ended, ExecItem, Gap, entry
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.exec import Exited, Lost
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Malformed
from sandreel_core.ordinals import Ordinals


async def view(
    bus: Bus, subjects: SessionSubjects, exec_id: str, *, after: Cursor | None = None, live: bool = True
) -> AsyncGenerator[ExecItem, None]:
    """Its items behind `after`, until its end or, unless `live`, until what is stored now."""
    subject, partition = subjects.exec(exec_id), subjects.partition
    epoch = (await bus.state(subjects.stream)).epoch
    ordinals = Ordinals()
    begin = after.check(epoch) if after else 0
    if begin:
        stored = await bus.get(subjects.stream, begin)
        if stored is None or stored.subject != subject or (event := _decode(stored)) is None:
            raise Malformed(f"cursor {after} does not stand on an event of exec {exec_id}")
        if isinstance(event.data, Exited | Lost):
            yield CaughtUp(Cursor(epoch, partition, begin))
            return
        ordinals = Ordinals(event.n or 0)
    place = after or Cursor(epoch, partition, 0)
    async with aclosing(bus.follow(subjects.stream, [subject], after=begin, live=live)) as items:
        async for item in items:
            if isinstance(item, StreamCaughtUp):
                yield CaughtUp(place)
            if not isinstance(item, list):
                continue
            for stored in item:
                event = _decode(stored)
                if event is None:
                    continue
                if not ordinals.last and (event.n or 0) > 1:
                    yield Gap(place, f"events 1 to {(event.n or 1) - 1} are not in the stream any more")
                    ordinals = Ordinals((event.n or 1) - 1)
                if ordinals.accept(event):
                    place = Cursor(epoch, partition, stored.sequence)
                    shown = entry(place, stored.time_ns, event)
                    yield shown
                    if isinstance(shown, Ended):
                        return


def _decode(stored: Stored) -> Envelope | None:
    try:
        return decode_event(stored.subject, stored.body)
    except Malformed:
        return None
