"""What was said to a turn in its middle, and how far each message has come. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeAlias

from sandreel_core.client.turn_items import TurnEntry, TurnItem
from sandreel_core.contract import turn as t

# `queued` also when it was handed over and never confirmed: then it opens the next turn.
MessageState: TypeAlias = Literal["queued", "delivered", "consumed"]


@dataclass(frozen=True, slots=True)
class Message:
    """`channel`: the way on which it was handed over last."""

    message_id: str
    text: str
    actor: str | None
    at: datetime
    state: MessageState = "queued"
    channel: str | None = None


def is_about_messages(item: TurnItem) -> bool:
    """Whether `queue_of` needs it: of a turn of weeks that is little."""
    about = t.SteerQueued | t.SteerDelivered | t.SteerConsumed | t.SteerRequeued
    return isinstance(item, TurnEntry) and isinstance(item.data, about)


def queue_of(items: Iterable[TurnItem]) -> list[Message]:
    """The messages of a turn, in the order in which they were sent."""
    found: dict[str, Message] = {}
    for item in items:
        if not isinstance(item, TurnEntry):
            continue
        match item.data:
            case t.SteerQueued(message_id=id, text=text):
                found.setdefault(id, Message(id, text, item.event.actor, item.stored_at))
            case t.SteerDelivered(message_ids=ids, channel=channel):
                _change(found, ids, "delivered", channel)
            case t.SteerConsumed(message_ids=ids):
                _change(found, ids, "consumed")
            case t.SteerRequeued(message_ids=ids):
                _change(found, ids, "queued")
    return list(found.values())


def _change(found: dict[str, Message], ids: list[str], state: MessageState, channel: str | None = None) -> None:
    for id in ids:
        if (message := found.get(id)) is not None and message.state != "consumed":
            found[id] = replace(message, state=state, channel=channel or message.channel)
