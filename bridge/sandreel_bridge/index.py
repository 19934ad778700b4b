"""What a bridge keeps beside the log so that it need not read all of it: which turns are not settled, and where each
conversation stands.

Both are documents, of which the newest body of a subject counts. `turn.open` is written before the turn is asked for in the log, and removed
after all is settled, so that it names too many rather than too few. Conversations stay, one for each turn that began one, and so have a stream
of their own, which ends by age: should it be full all the same, no turn is kept from starting or ending by that.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from sandreel_bridge.journal import Name
from sandreel_core.bus.port import Bus, Stream
from sandreel_core.contract.turn import Usage
from sandreel_core.errors import AlreadyExists, Conflict, Full
from sandreel_core.log import Log

TURNS = "TURNS"
CONVERSATIONS = "CONVERSATIONS"
# Some 400 bytes a document: half a million conversations, or half a year of them.
_MAX_BYTES = 256 * 1024 * 1024
_REMEMBERED_S = 183 * 86_400
_EPOCH = "turn.epoch"


def streams(*, replicas: int = 1) -> list[Stream]:
    """Of these documents."""
    return [
        Stream(
            name=TURNS, subjects=("turn.open.>", f"{_EPOCH}.*"), max_bytes=_MAX_BYTES, per_subject=1, replicas=replicas
        ),
        Stream(
            name=CONVERSATIONS,
            subjects=("turn.conversation.>",),
            max_bytes=_MAX_BYTES,
            max_age_s=_REMEMBERED_S,
            per_subject=1,
            replicas=replicas,
        ),
    ]


class Conversation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a conversation stands after its newest turn: what the program calls it (None: it has none of that name any more, and begins
    anew), in which life of the session, and what it says to have used of it so far."""

    turn: str
    agent: str
    incarnation: int
    agent_session_id: str | None = None
    thread_usage: Usage | None = None


class Index:
    """Of one installation. Every method raises Unavailable."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._log = Log("bridge.index")

    async def open(self, name: Name, conversation: str) -> None:
        """The turn, which belongs to that conversation of its session, is not settled. Twice is once."""
        try:
            await self._bus.append(_open(name, conversation), b"{}", expected=0)
        except (Conflict, AlreadyExists):
            return

    async def settled(self, name: Name) -> None:
        await self._bus.purge(TURNS, _open(name, "*"))

    async def is_open(self, name: Name) -> bool:
        return await self._bus.last(TURNS, _open(name, "*")) is not None

    async def unsettled(self) -> list[Name]:
        """Of every organisation and session."""
        return await self._names("turn.open.*.*.*.*")

    async def unsettled_of(self, org: str, session: str, conversation: str) -> list[Name]:
        """Those of one conversation."""
        return await self._names(_open(Name(org, session, "*"), conversation))

    async def epoch(self, partition: int) -> str | None:
        """Of the log that it was compared with last (`sandreel_bridge.restored`)."""
        found = await self._bus.last(TURNS, f"{_EPOCH}.{partition}")
        return found.body.decode(errors="replace") if found is not None else None

    async def compared(self, partition: int, epoch: str) -> None:
        await self._bus.append(f"{_EPOCH}.{partition}", epoch.encode())

    async def _names(self, filter: str) -> list[Name]:
        subjects = await self._bus.subjects(TURNS, filter)
        return [Name(*subject.split(".")[2:5]) for subject in subjects]

    async def conversation(self, org: str, session: str, id: str) -> Conversation | None:
        stored = await self._bus.last(CONVERSATIONS, f"turn.conversation.{org}.{session}.{id}")
        try:
            return msgspec.json.decode(stored.body, type=Conversation) if stored is not None else None
        except msgspec.DecodeError:
            return None  # of a version that writes it otherwise: then the conversation begins anew

    async def remember(self, org: str, session: str, id: str, conversation: Conversation) -> None:
        """As far as there is room: a conversation that is forgotten begins anew."""
        try:
            await self._bus.append(f"turn.conversation.{org}.{session}.{id}", msgspec.json.encode(conversation))
        except Full as error:
            self._log.warning("a conversation is not remembered", org=org, session=session, problem=str(error))


def _open(name: Name, conversation: str) -> str:
    return f"turn.open.{name.org}.{name.session}.{name.turn}.{conversation}"
