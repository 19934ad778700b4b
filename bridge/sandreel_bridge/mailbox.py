"""What a person says to a program that runs: handed over, and seen to be read. What is due is worked out in `steering`."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from sandreel_bridge.adapters.adapter import Adapter
from sandreel_bridge.attempt import Attempt, command_id
from sandreel_bridge.journal import Journal
from sandreel_bridge.steering import (
    Deliver,
    Delivery,
    Message,
    breaks_the_silence,
    deliveries,
    file_name,
    folder_of,
    heard,
    joined,
    message_uuid,
    missing_for_hook,
    step,
    taken_by_hook,
)
from sandreel_core.agent import AgentItem, Typed
from sandreel_core.client import Client
from sandreel_core.client.handle import stdin_fields
from sandreel_core.contract.agent import ToolResult
from sandreel_core.contract.exec import MAX_STDIN_BYTES, WriteStdin
from sandreel_core.contract.turn import SteerConsumed, SteerDelivered, SteerRequeued, TurnEvent
from sandreel_core.errors import NotFound, Refused, SandreelError
from sandreel_core.log import Log
from sandreel_core.turn import Turn

# While something lies where the hook looks: so often it is seen whether it was taken, and at once when a tool has ended (behaviour §4.4).
LOOK_S = 2.0
# A program that does not read its input takes none; it is tried again, and who presses stop meanwhile is heard in between.
WRITTEN_WITHIN_S = 5.0
_CLOSED = ("STDIN_CLOSED", "EXEC_NOT_FOUND", "WRITE_FAILED")


class Mailbox:
    """Of one attempt. Only whoever drives the turn has one, so that each of its events is said once.

    heard    to be called with everything that the program says, and the turn before it, before it stands in the turn's log; what it
             returns has to stand there too, or a message that was read would open the next turn
    attend   to be called whenever the turn has changed; again after the seconds that it returns (None: when it changes again)
    settle   when the program has ended
    """

    def __init__(
        self, client: Client, journal: Journal, adapter: Adapter, *, now: Callable[[], float] = monotonic
    ) -> None:
        self._client = client
        self._journal = journal
        self._adapter = adapter
        self._attempt = Attempt.of(journal.name, journal.turn)
        self._folder = folder_of(self._attempt.exec)
        self._files = client.files(journal.name.org, journal.name.session)
        self._now = now
        self._spoke_at = now()
        self._looked_at: float | None = None
        self._input_open = True
        # Taken by the hook, and not said yet.
        self._taken: list[str] = []
        # What is written down as delivered, and may not be done: by a driver before us, or by us while the server was away.
        self._unwritten = [each for each in deliveries(journal.turn) if each.channel == "stdin"]
        self._log = Log("bridge.mailbox")

    def heard(self, turn: Turn, item: AgentItem) -> list[TurnEvent]:
        if breaks_the_silence(item):
            self._spoke_at = self._now()
        if isinstance(item, ToolResult) and item.parent is None:
            self._looked_at = None
        found = heard(turn, self._journal.name.turn, item)
        said: list[TurnEvent] = []
        if found.consumed:
            said.append(SteerConsumed(message_ids=list(found.consumed)))
        if found.refused:
            said.append(SteerRequeued(message_ids=list(found.refused)))
        return said

    def typed(self, item: Typed) -> None:
        """The same of text as it is being typed, which no log holds."""
        if breaks_the_silence(item):
            self._spoke_at = self._now()

    async def attend(self) -> float | None:
        """Raises Conflict when the turn is not ours any more, Unavailable."""
        await self._write_all()
        while True:
            await self._confirm()
            due = step(
                self._adapter.way,
                self._journal.turn,
                self._now() - self._spoke_at,
                input_open=self._input_open and self._adapter.say is not None,
            )
            if isinstance(due, Deliver):
                await self._deliver(due)
                continue
            if due.look and (wait_s := self._until_look()) > 0:
                return min(wait_s, due.for_s) if due.for_s is not None else wait_s
            if not due.look:
                return due.for_s
            await self._look()

    async def settle(self) -> None:
        """Say what the hook has taken, as far as it can be seen, and tidy up after it. Raises Conflict, Unavailable of the log alone."""
        if not self._journal.turn.messages:
            return  # nobody has said anything
        names: set[str] = set()
        try:
            names = await self._names()
        except (
            SandreelError
        ) as error:  # the session is gone with it: what was not seen to be read goes back to the queue
            self._log.info("a hook's folder is out of reach", turn=str(self._journal.name), problem=str(error))
        self._taken += taken_by_hook(names, self._journal.turn)
        await self._confirm()
        with suppress(SandreelError):  # gone as well, and then with all that is in it
            for name in sorted(names):
                await self._remove(f"{self._folder}/{name}")
            await self._remove(self._folder)

    # -- what was read

    async def _confirm(self) -> None:
        """Each once: what is consumed by the log is not waiting any more."""
        told = [id for id in dict.fromkeys(self._taken) if id in self._journal.turn.waiting]
        self._taken.clear()
        if told:
            await self._journal.insist(SteerConsumed(message_ids=told))

    def _until_look(self) -> float:
        return 0.0 if self._looked_at is None else max(0.0, self._looked_at + LOOK_S - self._now())

    async def _look(self) -> None:
        names = await self._names()
        self._looked_at = self._now()
        self._taken += taken_by_hook(names, self._journal.turn)
        for message in missing_for_hook(names, self._journal.turn):
            await self._lay(message)

    async def _names(self) -> set[str]:
        try:
            return {entry.name for entry in (await self._files.list(self._folder)).entries}
        except NotFound:
            return set()

    # -- what is handed over

    async def _deliver(self, due: Deliver) -> None:
        delivery = due.delivery
        if due.taking_back:
            for message in due.taking_back:
                await self._remove(self._path(message))
            taken = taken_by_hook(await self._names(), self._journal.turn)
            self._taken += taken
            left = tuple(message for message in delivery.messages if message.id not in taken)
            if not left:
                return
            delivery = Delivery(left, delivery.channel)
        await self._journal.insist(SteerDelivered(message_ids=delivery.ids, channel=delivery.channel))
        if delivery.channel == "stdin":
            self._unwritten.append(delivery)
            await self._write_all()
        else:
            for message in delivery.messages:
                await self._lay(message)

    async def _write_all(self) -> None:
        while self._unwritten:
            await self._write(self._unwritten[0])
            del self._unwritten[0]

    async def _write(self, delivery: Delivery) -> None:
        """Under one UUID and under command ids that whoever does it again finds again: of the time when it was written down that it is
        done, for a turn may run for weeks, and an old id is stale."""
        say, name, first = self._adapter.say, self._journal.name, self._journal.turn.messages[delivery.ids[0]]
        if say is None or first.handed_at is None:
            return
        if not self._input_open:
            await self._fall_back(delivery)
            return
        uuid = message_uuid(name.turn, delivery.ids)
        line = say(joined(delivery.messages), uuid)
        for offset in range(0, len(line), MAX_STDIN_BYTES):
            text, encoded = stdin_fields(line[offset : offset + MAX_STDIN_BYTES])
            command = WriteStdin(exec=self._attempt.exec, text=text, base64=encoded)
            id = command_id(first.handed_at, "steer", str(name), self._attempt.exec, uuid, str(offset))
            try:
                await self._client.send(
                    name.org, name.session, command, command_id=id, answer_timeout_s=WRITTEN_WITHIN_S
                )
            except Refused as refused:
                self._log.info("a message was not taken", turn=str(name), code=refused.code)
                # Of any other reason (STALE: it was written down weeks ago, and never seen to be read) it goes back into the queue: to
                # ask again would keep back all that is said later, and to wait for its being read would keep the turn from its end.
                if refused.code in _CLOSED:
                    await self._fall_back(delivery)
                else:
                    await self._journal.insist(SteerRequeued(message_ids=delivery.ids))
                return

    async def _fall_back(self, delivery: Delivery) -> None:
        """Its input has ended: there may be a hook still, and else the next turn."""
        self._input_open = False
        if self._adapter.way == "hooked":
            await self._journal.insist(SteerDelivered(message_ids=delivery.ids, channel="hook"))
            for message in delivery.messages:
                await self._lay(message)

    def _path(self, message: Message) -> str:
        return f"{self._folder}/{file_name(message)}"

    async def _lay(self, message: Message) -> None:
        body = json.dumps({"id": message.id, "text": message.text}, ensure_ascii=False).encode(errors="replace")
        await self._files.write(self._path(message), body)

    async def _remove(self, path: str) -> None:
        try:
            await self._files.delete(path)
        except (NotFound, Refused):
            return  # taken, or never there
