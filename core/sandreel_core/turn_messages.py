"""What was said to a turn while it ran, and how far each message has come. Pure.

queued → delivered → consumed, or requeued: back in the queue, for the next turn
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from sandreel_core.contract import turn as c

Place = Literal["queued", "delivered", "consumed", "requeued"]
Channel = Literal["stdin", "hook", "next_turn"]
# Messages that are remembered, with those that were read: a turn may run for weeks.
_REMEMBERED = 256


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One that was sent while the turn ran, and how far it has come.

    text      empty once it was read: nobody needs it any more
    number    its place among them, from 1
    channel   how it was handed over, at that time; `together`: the ids of all that were handed over with it, its own among them
    """

    text: str
    place: Place = "queued"
    number: int = 1
    channel: Channel | None = None
    handed_at: datetime | None = None
    together: tuple[str, ...] = ()


# By id, in the order in which they were sent.
Messages: TypeAlias = dict[str, Message]


def moved(messages: Messages, data: c.TurnEvent, at: datetime) -> Messages:
    """The messages after an event of the turn's, which was said at that time; the same ones where it is not about them."""
    match data:
        case c.SteerQueued():
            number = 1 + max((each.number for each in messages.values()), default=0)
            return _unread_first(messages | {data.message_id: Message(text=data.text, number=number)})
        case c.SteerDelivered():
            together = tuple(data.message_ids)
            how = {"channel": data.channel, "handed_at": at, "together": together}
            return _moved(messages, together, "delivered", **how)
        case c.SteerConsumed():
            return _moved(messages, data.message_ids, "consumed", text="")
        case c.SteerRequeued():
            return _moved(messages, data.message_ids, "requeued")
    return messages


def _moved(messages: Messages, ids: Iterable[str], place: Place, **how: object) -> Messages:
    """What was read stays so."""
    found = {id: messages[id] for id in ids if id in messages}
    return messages | {id: replace(each, place=place, **how) for id, each in found.items() if each.place != "consumed"}


def _unread_first(messages: Messages) -> Messages:
    """Of those that were read the newest, of the others all, which `turn_decision.MAX_QUEUED` bounds."""
    read = [id for id, message in messages.items() if message.place == "consumed"]
    forgotten = set(read[: max(0, len(messages) - _REMEMBERED)])
    return {id: message for id, message in messages.items() if id not in forgotten}
