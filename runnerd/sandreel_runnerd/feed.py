"""Reads the session's commands: in order, each once, over any disconnect; and stops reading for a drain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import msgspec

from sandreel_core.bus.port import Bus, Stored
from sandreel_core.contract.bootstrap import FeedMade, MakeFeed
from sandreel_core.contract.subjects import CMD, SessionSubjects
from sandreel_core.errors import NotFound, Over, SandreelError, Unavailable
from sandreel_core.log import Log

# Batches that were read and not yet handled. Handling waits for the bus at most, so few are enough.
_MAX_BATCHES = 4
_FIRST_RETRY_S = 0.2
_MAX_RETRY_S = 5.0
# A feed that was just made hands out what waits in it within milliseconds; when it has been silent for so long since its
# last batch, the commands have been read to their end.
_QUIET_S = 1.0
_ATTEND_WITHIN_S = 2.5  # the spawner waits 5 s for a drain
DRAIN_LAPSES_S = 30.0  # design §6

Take = Callable[[Stored], Awaitable[None]]


class Feed:
    """One per boot. `handled` is the sequence in CMD of the last command that was taken."""

    def __init__(self, bus: Bus, subjects: SessionSubjects, *, boot_id: str, after: int, take: Take, log: Log) -> None:
        """take: called for every command, one at a time; must not raise."""
        self._bus = bus
        self._subject = subjects.request("spawner", "feed")
        self._stream = CMD
        self._boot_id = boot_id
        self._take = take
        self._log = log
        self.handled = after
        self._received = after
        # What was received before the last reconnection: CMD cannot have less, however late an answer about it is.
        self._before = after
        self._until: int | None = None
        self._closed = False
        self._lapse: asyncio.TimerHandle | None = None
        # Batches that were read before a lift are of the past: the feed is read again from what was handled.
        self._reading = 0
        self._batches: asyncio.Queue[tuple[int, list[Stored]]] = asyncio.Queue(_MAX_BATCHES)
        self._again = asyncio.Event()
        # Whether this feed has been silent once: what comes later comes as it is sent.
        self._at_end = asyncio.Event()
        self._quiet_timer: asyncio.TimerHandle | None = None

    @property
    def draining(self) -> bool:
        return self._until is not None

    @property
    def attended(self) -> bool:
        """Whether runnerd is connected, has read its commands to their end, and has taken all that it read: then what
        nobody has sent until now is known not to be there."""
        return self._reads_live and self._until is None and self.handled >= self._received

    @property
    def _reads_live(self) -> bool:
        return self._at_end.is_set() and self._bus.connected

    async def run(self, feed: str) -> None:
        """For ever, beginning with the feed of this name. Raises Over when this boot was declared dead."""
        reading = self._reading
        async with asyncio.TaskGroup() as group:
            group.create_task(self._handle())
            while True:
                generation = await self._bus.wait_connected()
                begun = asyncio.get_running_loop().time()
                if reading == self._reading:  # else it begins at a place that was given up while it was asked for
                    await self._read(feed, generation)
                if asyncio.get_running_loop().time() - begun < _FIRST_RETRY_S:
                    await asyncio.sleep(_FIRST_RETRY_S)  # a feed that goes as soon as it is made must not spin
                self._before = self._received
                reading = self._reading
                feed = await self._ask()

    async def drain(self, until: int) -> None:
        """Take no command behind `until`; returns when those up to it have been taken. Lapses after 30 s.

        When it was closed there is nothing to stop, and no lift takes that back.

        Raises Unavailable, and the drain is lifted, when commands are not being read: then nothing is known."""
        if self._closed:
            await self._batches.join()
            return
        if self._until is not None:
            self.lift()
        self._until = until
        if self._lapse is not None:
            self._lapse.cancel()
        self._lapse = asyncio.get_running_loop().call_later(DRAIN_LAPSES_S, self._lapsed)
        if self.handled < until:
            # CMD holds commands of other sessions too: what is ours up to `until` is known to be read by the silence.
            try:
                async with asyncio.timeout(_ATTEND_WITHIN_S):
                    await self._at_end.wait()
                await self._quiet()
            except TimeoutError:
                pass
            if not self._reads_live:
                self.lift()
                raise Unavailable("commands are not being read")
        await self._batches.join()

    def lift(self) -> None:
        """Take commands again, from the last that was taken. Any number of times."""
        if self._lapse is not None:
            self._lapse.cancel()
            self._lapse = None
        if self._until is None or self._closed:
            return
        self._until = None
        self._received = self.handled
        self._read_again()

    def hear(self, commands_last: int, restored_at: int | None = None) -> None:
        """CMD's last sequence, and when it came back from a backup since we last heard, where it ended then. One that is
        smaller than what was handled means that CMD was restored: what is stored behind it is new, although its
        numbers are not."""
        last = commands_last if restored_at is None else min(restored_at, commands_last)
        if last < self._before:
            self._log.warning("commands were restored", last=last, handled=self.handled)
            self.handled = self._received = self._before = last
            self._read_again()

    def close(self) -> None:
        """Take nothing more, for ever."""
        if self._lapse is not None:
            self._lapse.cancel()
            self._lapse = None
        self._until = -1
        self._closed = True

    def _lapsed(self) -> None:
        self._log.warning("drain lapsed")
        self.lift()

    def _read_again(self) -> None:
        self._reading += 1
        self._at_end.clear()
        self._again.set()

    async def _quiet(self) -> None:
        seen = -1
        while seen != self._received:
            seen = self._received
            await asyncio.sleep(_QUIET_S / 2)

    async def _read(self, feed: str, generation: int) -> None:
        """Until the feed is gone, the connection is another one, or a drain was lifted."""
        self._again.clear()
        tasks = [
            asyncio.ensure_future(self._receive(feed)),
            asyncio.ensure_future(self._bus.wait_connected(generation)),
            asyncio.ensure_future(self._again.wait()),
        ]
        self._await_silence()
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            if self._quiet_timer is not None:
                self._quiet_timer.cancel()
            self._at_end.clear()
        for error in ended:
            if isinstance(error, NotFound | Unavailable):
                self._log.info("feed is gone", problem=str(error))
            elif isinstance(error, Exception):
                raise error

    def _await_silence(self) -> None:
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
        self._quiet_timer = asyncio.get_running_loop().call_later(_QUIET_S, self._at_end.set)

    async def _receive(self, feed: str) -> None:
        reading = self._reading
        async with aclosing(self._bus.feed(self._stream, feed)) as batches:
            async for batch in batches:
                fresh = [stored for stored in batch if stored.sequence > self._received]
                if not fresh:
                    continue
                await self._batches.put((reading, fresh))
                if reading != self._reading:
                    return
                self._received = fresh[-1].sequence
                if not self._at_end.is_set():
                    self._await_silence()

    async def _handle(self) -> None:
        while True:
            reading, batch = await self._batches.get()
            try:
                for stored in batch:
                    if reading != self._reading or stored.sequence <= self.handled:
                        continue
                    if self._until is not None and stored.sequence > self._until:
                        continue
                    await self._take(stored)
                    self.handled = stored.sequence
            finally:
                self._batches.task_done()

    async def _ask(self) -> str:
        """A new feed, behind what was received. Raises Over."""
        delay_s = _FIRST_RETRY_S
        while True:
            request = MakeFeed(boot_id=self._boot_id, after=self._received)
            try:
                answer = await self._bus.request(self._subject, msgspec.json.encode(request))
                return msgspec.json.decode(answer, type=FeedMade).feed
            except (Unavailable, NotFound) as error:
                self._log.info("no feed yet", problem=str(error))
            except Over:
                raise
            except (SandreelError, msgspec.DecodeError) as error:
                self._log.error("feed refused", problem=str(error))
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _MAX_RETRY_S)
            await self._bus.wait_connected()
