"""Pipelined publishing of ordered subjects, go-back-N (design §3): fast, and exact over any failure.

One task sends for all subjects, one watches the connection; a message on the hot path costs no task and no future.
Retried for ever with backoff and jitter: time-out, disconnect, no responder, a full stream. Any other refusal
becomes a gap event (`window.py` says how).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from sandreel_core.bus.backoff import FIRST_RETRY_S, backoff_s
from sandreel_core.bus.lane import Lane
from sandreel_core.bus.port import Bus, Channel
from sandreel_core.bus.wake import Signal
from sandreel_core.bus.window import Author, Entry, Window
from sandreel_core.errors import Denied, NotFound, SandreelError, Unavailable
from sandreel_core.log import Log

Greet = Callable[[], Awaitable[None]]

# Enough to keep the server busy (docs/decisions/0006).
WINDOW_MESSAGES = 12
# Of small messages so few that a child which prints faster than the disk syncs meets a full window soon: its next read then
# takes more at once, instead of standing in a long queue of which each message costs a sync.
SMALL_MESSAGES, SMALL_BYTES = 4, 32 * 1024
WINDOW_BYTES = 4 * 1024 * 1024  # one subject's window
TOTAL_BYTES = 32 * 1024 * 1024  # all windows of a process, so that many busy subjects stay bounded too
ACK_TIMEOUT_S = 5.0  # longer than an fsync on a busy disk; a needless resend costs only a repeat
TICK_S = 0.25  # how soon a lost answer or a lost connection is noticed


class Pipeline:
    """All lanes of one process on one bus. Open it with `async with pipeline.running():`.

    greet  awaited before anything is sent again after a reconnection, and before a refused event that may have
           been stored becomes a gap: asks the log and calls `Lane.reconcile` for every lane. Raises Denied to keep
           the pipeline closed until the next reconnection; retries everything else itself. Without it such an
           event is sent until it is taken
    """

    def __init__(
        self,
        bus: Bus,
        *,
        greet: Greet | None = None,
        window_messages: int = WINDOW_MESSAGES,
        small_messages: int = SMALL_MESSAGES,
        window_bytes: int = WINDOW_BYTES,
        total_bytes: int = TOTAL_BYTES,
        ack_timeout_s: float = ACK_TIMEOUT_S,
        first_retry_s: float = FIRST_RETRY_S,
    ) -> None:
        self._bus = bus
        self._greet = greet
        self._window_messages = window_messages
        self._small_messages = small_messages
        self._window_bytes = window_bytes
        self._total_bytes = total_bytes
        self._ack_timeout_s = ack_timeout_s
        self._first_retry_s = first_retry_s
        self._tick_s = min(TICK_S, ack_timeout_s / 2)
        self._bytes = 0
        self._greeted = -1
        self._token = 0
        self.resends = 0  # how often a lane was sent again
        self.gaps = 0  # how often a gap was put in the place of what is not to be had any more
        self._in_flight: dict[int, tuple[Lane, Entry]] = {}
        self._lanes: list[Lane] = []
        self._ready: deque[Lane] = deque()
        self._wake = asyncio.Event()
        self._doubt = asyncio.Event()
        self._greeting = asyncio.Lock()
        self._moved = Signal()
        self._log = Log("pipeline")

    @property
    def is_open(self) -> bool:
        """Connected, and greeted on this connection."""
        return self._bus.connected and self._bus.generation == self._greeted

    @property
    def sent(self) -> int:
        """How many messages were handed to the connection so far, repeats included."""
        return self._token

    @property
    def messages(self) -> int:
        """Unacknowledged messages of all lanes."""
        return sum(len(lane.window) for lane in self._lanes)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Pipeline, None]:
        """What is not acknowledged when it is left is given up. The first connection is not greeted: nothing
        was sent before it."""
        if self._bus.connected:
            self._greeted = self._bus.generation
        async with asyncio.TaskGroup() as group, self._bus.channel(self._answer) as channel:
            works = (self._send(channel), self._watch(), self._resolve())
            tasks = [group.create_task(work) for work in works]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                for lane in list(self._lanes):
                    self.close(lane)

    def lane(self, subject: str, author: Author, *, next_n: int = 1) -> Lane:
        lane = Lane(subject, Window(author, next_n), self)
        self._lanes.append(lane)
        return lane

    def close(self, lane: Lane) -> None:
        """Forget the lane and what it holds."""
        if lane in self._lanes:
            self._lanes.remove(lane)
        self._forget(lane)
        self._bytes -= lane.window.bytes
        lane.window.entries.clear()
        lane.window.bytes = 0
        for timer in (lane.retry, lane.tick):
            if timer is not None:
                timer.cancel()
        self.notify()

    def has_room(self, window: Window) -> bool:
        if not window.entries:
            return True
        count = len(window.entries)
        if count >= self._window_messages:
            return False
        few = count < self._small_messages or window.bytes >= count * SMALL_BYTES
        return few and window.bytes < self._window_bytes and self._bytes < self._total_bytes

    def put(self, lane: Lane, body: bytes, n: int, keep: bool) -> None:
        before = lane.window.bytes
        lane.window.add(body, n, keep=keep)
        self._bytes += lane.window.bytes - before
        self._enqueue(lane)

    def reconcile(self, lane: Lane, last_n: int, why: str) -> bool:
        self._forget(lane)
        before = lane.window.bytes
        explained = lane.window.reconcile(last_n, why)
        self.gaps += explained
        self._bytes += lane.window.bytes - before
        self.notify()
        return explained

    async def changed(self) -> None:
        """Wait until anything changed: a release, the connection, or what `notify` was called for."""
        await self._moved.wait()

    def notify(self) -> None:
        """Wake everybody who waits in `changed`."""
        self._moved.fire()

    def _enqueue(self, lane: Lane) -> None:
        if not lane.queued and lane.retry is None:
            lane.queued = True
            self._ready.append(lane)
            self._wake.set()

    async def _send(self, channel: Channel) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._ready and self.is_open:
                lane = self._ready.popleft()
                lane.queued = False
                await self._send_lane(channel, lane)
            if self._ready:
                self.notify()  # the connection is gone: who waits for room may want to spool

    async def _send_lane(self, channel: Channel, lane: Lane) -> None:
        window = lane.window
        while (entry := window.unsent()) is not None and lane.retry is None and self.is_open:
            self._token = entry.token = self._token + 1
            self._in_flight[entry.token] = lane, entry
            if window.sent == 0:
                lane.progress_at = asyncio.get_running_loop().time()
            window.sent += 1
            self._watch_answers(lane)
            try:
                await channel.send(lane.subject, entry.body, entry.token)
            except SandreelError as error:
                self._answer(entry.token, error)

    def _answer(self, token: int, answer: int | SandreelError) -> None:
        found = self._in_flight.pop(token, None)
        if found is None:
            return  # of a round that is over: it says nothing about what stands before it
        lane, entry = found
        entry.token = 0
        window = lane.window
        before = window.bytes
        if isinstance(answer, int):
            if not window.acknowledge(entry):
                return
            lane.failures = 0
            lane.progress_at = asyncio.get_running_loop().time()
        elif isinstance(answer, Unavailable | NotFound):
            self._go_back(lane, f"{type(answer).__name__}: {answer}")
        else:
            window.refuse(entry, answer)
        self._settle(lane)
        self._bytes += window.bytes - before
        self.notify()

    def _settle(self, lane: Lane) -> None:
        head = lane.window.entries[0] if lane.window.entries else None
        if head is None or head.refused is None:
            return
        why = str(head.refused)
        verdict = lane.window.settle()
        self.gaps += verdict == "again"
        self._log.warning("the server refuses an event", subject=lane.subject, n=head.n, why=why, then=verdict)
        if verdict == "doubt" and self._greet is not None:
            self._greeted = -1
            self._doubt.set()
        else:
            self._go_back(lane, why, at_once=verdict == "again")

    def _go_back(self, lane: Lane, why: str, *, at_once: bool = False) -> None:
        """Everything of the lane is sent again, after a while that doubles with every failure in a row."""
        self.resends += lane.window.sent > 0
        self._forget(lane)
        if lane.retry is not None:
            lane.retry.cancel()
            lane.retry = None
        if at_once:
            self._enqueue(lane)
            return
        delay_s = backoff_s(lane.failures, self._first_retry_s)
        if lane.failures == 0:
            self._log.info("sending again", subject=lane.subject, why=why, messages=len(lane.window))
        lane.failures += 1
        lane.retry = asyncio.get_running_loop().call_later(delay_s, self._go_on, lane)

    def _go_on(self, lane: Lane) -> None:
        lane.retry = None
        self._enqueue(lane)

    def _forget(self, lane: Lane) -> None:
        for token in lane.window.go_back():
            self._in_flight.pop(token, None)

    def _watch_answers(self, lane: Lane) -> None:
        if lane.tick is None:
            lane.tick = asyncio.get_running_loop().call_later(self._tick_s, self._check_answers, lane)

    def _check_answers(self, lane: Lane) -> None:
        lane.tick = None
        if not lane.window.sent:
            return
        waited_s = asyncio.get_running_loop().time() - lane.progress_at
        if not self.is_open:
            self.notify()  # who waits for room may want to spool
        elif waited_s > self._ack_timeout_s or (lane.window.has_hole and waited_s > self._tick_s):
            self._go_back(lane, "no acknowledgement in time")
            self.notify()
            return
        self._watch_answers(lane)

    async def _watch(self) -> None:
        generation = self._greeted
        while True:
            generation = await self._bus.wait_connected(generation)
            await self._admit(generation)

    async def _resolve(self) -> None:
        """Answers doubts, once what is under way has been answered or will not be."""
        while True:
            await self._doubt.wait()
            try:
                async with asyncio.timeout(self._ack_timeout_s):
                    while self._in_flight:
                        await self.changed()
            except TimeoutError:
                self._log.info("asking the log without the last acknowledgements", messages=len(self._in_flight))
            self._doubt.clear()
            await self._admit(self._bus.generation)

    async def _admit(self, generation: int) -> None:
        """Everything of the old rounds is forgotten, the log is asked, and all lanes are sent again."""
        async with self._greeting:
            for lane in self._lanes:
                self.resends += lane.window.sent > 0
                self._forget(lane)
            if self._greet is not None:
                try:
                    await self._greet()
                except Denied as error:
                    self._log.error("not let in again", why=str(error))
                    self.notify()
                    return
            self._greeted = generation
            for lane in list(self._lanes):
                lane.failures = 0
                self._go_back(lane, "admitted", at_once=True)
            self._wake.set()
            self.notify()
