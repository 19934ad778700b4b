"""One turn, to somebody who watches it and may steer it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress

from sandreel_core import clock
from sandreel_core.bus.port import Bus
from sandreel_core.client.commands import Commands, Order, Outcome
from sandreel_core.client.reels import Reels
from sandreel_core.client.turn_items import TurnEntry, TurnFold, TurnItem, TurnResult
from sandreel_core.client.turn_queue import Message, is_about_messages, queue_of
from sandreel_core.client.turn_reading import Place, ReaderOf, read_turn, read_typed
from sandreel_core.client.turn_usage import read_usage
from sandreel_core.contract import turn as t
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.usage import UsageReconciled, UsageRecorded
from sandreel_core.errors import Unavailable


class TurnHandle:
    """Made by `Client.turn`, or by `Client.open_turn` for a turn that is there already, running or not.

    An async iterator of its items from the beginning, once; `follow` begins anew, anywhere. Every method that sends a command
    returns its outcome, or raises Refused (TURN_FINISHED, QUEUE_FULL, …) and, when no answer comes in time, Unavailable.
    """

    def __init__(
        self, bus: Bus, commands: Commands, reels: Reels, place: Place, cursor: Cursor, *, answer_timeout_s: float
    ) -> None:
        self._bus = bus
        self._commands = commands
        self._reels = reels
        self._place = place
        self._answer_timeout_s = answer_timeout_s
        self._items: AsyncGenerator[TurnItem, None] | None = None
        self.cursor = cursor

    @property
    def id(self) -> str:
        return self._place.turn

    @property
    def org(self) -> str:
        return self._place.subjects.org

    @property
    def session(self) -> str:
        return self._place.subjects.session

    @property
    def agent(self) -> str:
        return self._place.agent

    def __aiter__(self) -> AsyncIterator[TurnItem]:
        if self._items is None:
            self._items = self.follow()
        return self._items

    async def aclose(self) -> None:
        """End what was begun by iterating over the handle, for whoever leaves it before its end."""
        if self._items is not None:
            await self._items.aclose()

    def follow(
        self, after: Cursor | str | None = None, *, live: bool = True, reader_of: ReaderOf | None = None
    ) -> AsyncGenerator[TurnItem, None]:
        """Its events behind `after` (None: from the beginning), until its end; with `live=False`, until now.

        reader_of   a reader of an agent's output by the agent's name: then text comes as it is typed, too (`Typed`), of execs
                    that begin behind `after`
        No seam over reconnects, nothing twice, nothing left out. Raises Malformed for a cursor of another stream. Close it
        (`contextlib.aclosing`) unless it is read to its end.
        """
        cursor = Cursor.parse(after) if isinstance(after, str) else after
        if reader_of is None:
            return read_turn(self._bus, self._reels, self._place, after=cursor, live=live)
        return read_typed(self._bus, self._reels, self._place, after=cursor, live=live, reader_of=reader_of)

    async def finished(self) -> TurnResult:
        """How it ended. Waits as long as it runs: put `asyncio.timeout` around it, which leaves the turn alone."""
        fold = TurnFold(self.id, self.session)
        async with aclosing(self.follow()) as items:
            async for item in items:
                if (result := fold.take(item)) is not None:
                    return result
        raise Unavailable(f"the log of turn {self.id} ended before the turn")

    async def queue(self) -> list[Message]:
        """What was said to it in the middle, in that order, each as far as it has come by now."""
        async with aclosing(self.follow(live=False)) as items:
            return queue_of([item async for item in items if is_about_messages(item)])

    async def calls(self, *, settled_within_s: float = 0.0) -> list[UsageRecorded]:
        """Its model calls as the gateway counted them, by now; one whose event came twice once.

        settled_within_s   of a turn that has just ended, wait so long for `usage.reconciled`, behind which no call of it comes
        """
        found: dict[str, UsageRecorded] = {}
        after = self._place.first
        async for sequence, data in self._usage(after, live=False):
            after = sequence
            if _counts(data, found):
                return list(found.values())
        if settled_within_s <= 0:
            return list(found.values())
        with suppress(TimeoutError):
            async with asyncio.timeout(settled_within_s):
                async for _, data in self._usage(after, live=True):
                    if _counts(data, found):
                        break
        return list(found.values())

    async def _usage(
        self, after: int, *, live: bool
    ) -> AsyncGenerator[tuple[int, UsageRecorded | UsageReconciled], None]:
        async with aclosing(read_usage(self._bus, self._place.subjects, after=after, live=live)) as items:
            async for sequence, data in items:
                if data.turn == self.id:
                    yield sequence, data

    async def steer(self, text: str, *, message_id: str | None = None, command_id: str | None = None) -> Outcome:
        """Say something to the agent while it works; it is told as soon as it listens. Sent again under the same
        `message_id` it is said once."""
        message = message_id or clock.new_token("m-")
        return await self._ask(t.Steer(turn=self.id, message_id=message, text=text), command_id)

    async def interrupt(self, *, command_id: str | None = None) -> Outcome:
        """End it: no exec starts after this, and the one that runs is asked, then signalled, then killed."""
        return await self._ask(t.Interrupt(turn=self.id), command_id)

    async def approve(self, *, command_id: str | None = None) -> Outcome:
        """Let the plan be carried out, in the turn that the outcome's `next_turn` names; `goes_on_in` where it was settled already."""
        return await self._ask(t.Approve(turn=self.id), command_id)

    async def goes_on_in(self) -> str | None:
        """The turn in which its plan is carried out, once that is approved. Raises Unavailable."""
        async with aclosing(self.follow(live=False)) as items:
            async for item in items:
                if isinstance(item, TurnEntry) and isinstance(item.data, t.PlanApproved):
                    return item.data.next_turn
        return None

    async def reject(self, reason: str = "", *, command_id: str | None = None) -> Outcome:
        """The plan is not carried out."""
        return await self._ask(t.Reject(turn=self.id, reason=reason), command_id)

    async def _ask(self, command: t.TurnCommand, command_id: str | None) -> Outcome:
        order = Order(self._place.subjects, command, command_id=command_id)
        return await self._commands.ask(order, timeout_s=self._answer_timeout_s)


def _counts(data: UsageRecorded | UsageReconciled, found: dict[str, UsageRecorded]) -> bool:
    """Whether there is nothing more to count."""
    if isinstance(data, UsageReconciled):
        return True
    found.setdefault(data.call_id, data)
    return False
