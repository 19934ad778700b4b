"""The spawner's desk as runnerd sees it: answers bootstrap, feed and log, sends commands, and collects what is told.

Over any bus. Streams are made here with the fewest settings, so that a test owns what it needs.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from sandreel_core.bus.port import Bus, Stored, Stream
from sandreel_core.clock import new_id
from sandreel_core.contract import bootstrap as b
from sandreel_core.contract import codec
from sandreel_core.contract import exec as x
from sandreel_core.contract import runnerd as r
from sandreel_core.contract.message import Command, Envelope
from sandreel_core.contract.requests import Request
from sandreel_core.contract.session import Limits
from sandreel_core.contract.subjects import CMD, SessionSubjects
from sandreel_core.errors import Over, Unavailable
from sandreel_core.ordinals import Ordinals

T = TypeVar("T")
WITHIN_S = 30.0


class Desk:
    def __init__(self, bus: Bus, subjects: SessionSubjects, *, boot_id: str = "1-1") -> None:
        self.bus = bus
        self.subjects = subjects
        self.boot_id = boot_id
        self.env: dict[str, str] = {}
        self.limits = Limits()
        self.hold = False
        self.dead = False
        self.bootstraps: list[b.Bootstrap] = []
        self.feeds: list[str] = []
        self.logs = 0
        self.beats: list[r.Heartbeat] = []
        self.stored: list[tuple[Stored, Envelope]] = []
        self._accepted: dict[str, tuple[Ordinals, list[Envelope]]] = {}
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Desk]:
        stream = Stream(self.subjects.stream, ("evt.>",), max_bytes=1 << 30, metadata={"epoch": "e1"})
        commands = Stream(
            CMD, ("cmd.>",), max_bytes=1 << 28, max_age_s=7 * 86_400, per_subject=1, discard_new_per_subject=True
        )
        await self.bus.ensure([stream, commands])
        async with AsyncExitStack() as stack:
            for verb, handler in (("bootstrap", self._bootstrap), ("feed", self._feed), ("log", self._log)):
                await stack.enter_async_context(self.bus.serve(f"req.spawner.*.*.{verb}", handler))
            await stack.enter_async_context(self.bus.listen(self.subjects.heartbeat(), self._beat))
            reader = asyncio.ensure_future(self._read())
            try:
                yield self
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)

    # What runnerd asks.

    async def _bootstrap(self, subject: str, body: bytes) -> bytes:
        request = msgspec.json.decode(body, type=b.Bootstrap)
        self.bootstraps.append(request)
        if self.dead:
            raise Over("this boot is over")
        workspace = await self.bus.last(self.subjects.stream, self.subjects.event("workspace"))
        answer = b.Bootstrapped(
            epoch="e1",
            partitions=1,
            env=self.env,
            limits=self.limits,
            commands_after=0,
            feed=await self._make_feed(0),
            hold=self.hold,
            workspace_last=workspace.sequence if workspace is not None else 0,
        )
        return msgspec.json.encode(answer)

    async def _feed(self, subject: str, body: bytes) -> bytes:
        request = msgspec.json.decode(body, type=b.MakeFeed)
        if self.dead:
            raise Over("this boot is over")
        return msgspec.json.encode(b.FeedMade(feed=await self._make_feed(request.after)))

    async def _make_feed(self, after: int) -> str:
        name = f"feed-{self.subjects.session}-{len(self.feeds)}"
        await self.bus.make_feed(CMD, name, [self.subjects.commands("runnerd")], after=after)
        self.feeds.append(name)
        return name

    async def _log(self, subject: str, body: bytes) -> bytes:
        request = msgspec.json.decode(body, type=b.AskLog)
        if self.dead:
            raise Over("this boot is over")
        self.logs += 1
        heads: dict[str, b.ExecHead] = {}
        for exec_id in request.execs:
            ordinals, events = Ordinals(), []
            async with aclosing(
                self.bus.follow(self.subjects.stream, [self.subjects.exec(exec_id)], live=False)
            ) as items:
                async for item in items:
                    for stored in item if isinstance(item, list) else ():
                        event = codec.decode_event(stored.subject, stored.body)
                        if ordinals.accept(event):
                            events.append(event)
            if events:
                heads[exec_id] = b.ExecHead(
                    boot_id=events[0].data.boot_id,
                    started_by=events[0].causationid,
                    last_n=ordinals.last,
                    ended=ordinals.ended,
                )
        last = (await self.bus.state(CMD)).last_sequence
        return msgspec.json.encode(b.LogHead(epoch="e1", commands_last=last, execs=heads))

    def _beat(self, subject: str, body: bytes) -> None:
        self.beats.append(msgspec.json.decode(body, type=r.Heartbeat))
        self._tell()

    async def _read(self) -> None:
        async with aclosing(self.bus.follow(self.subjects.stream, [self.subjects.all_events()])) as items:
            async for item in items:
                for stored in item if isinstance(item, list) else ():
                    event = codec.decode_event(stored.subject, stored.body)
                    self.stored.append((stored, event))
                    if event.n is not None:
                        ordinals, events = self._accepted.setdefault(stored.subject, (Ordinals(), []))
                        if ordinals.accept(event):
                            events.append(event)
                self._tell()

    def _tell(self) -> None:
        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        asyncio.ensure_future(notify())  # noqa: RUF006 - it ends at once

    # What a test does.

    async def until(self, find: Callable[[], T | None], within_s: float = WITHIN_S) -> T:
        """The first true answer of `find`, asked after every event and heartbeat."""
        async with asyncio.timeout(within_s), self._changed:
            while not (found := find()):
                await self._changed.wait()
        return found

    async def send(self, command: Command, *, id: str | None = None, **attributes: Any) -> str:
        id = id or new_id()
        subject = self.subjects.command("runnerd", id)
        envelope = codec.seal(
            command, id=id, source="/test", subject=subject, time=datetime.now(UTC), actor="tester", **attributes
        )
        await self.send_raw(id, codec.encode(envelope))
        return id

    async def send_raw(self, id: str, body: bytes) -> None:
        while True:
            try:
                await self.bus.append(self.subjects.command("runnerd", id), body)
                return
            except Unavailable:
                await self.bus.wait_connected()

    async def outcome(self, command_id: str, within_s: float = WITHIN_S) -> Envelope:
        """The first event that names the command as its cause."""

        def find() -> Envelope | None:
            return next((event for _, event in self.stored if event.causationid == command_id), None)

        return await self.until(find, within_s)

    def outcomes(self, command_id: str) -> list[Envelope]:
        return [event for _, event in self.stored if event.causationid == command_id]

    async def ask(self, command: Command, **attributes: Any) -> Any:
        """The payload of the command's outcome."""
        return (await self.outcome(await self.send(command, **attributes))).data

    def events(self, exec_id: str) -> list[Envelope]:
        """What a reader takes of an exec."""
        return self._accepted.get(self.subjects.exec(exec_id), (Ordinals(), []))[1]

    def kinds(self, exec_id: str) -> list[str]:
        return [event.type for event in self.events(exec_id)]

    def output(self, exec_id: str, stream: str = "stdout") -> bytes:
        blocks = [event.data for event in self.events(exec_id) if isinstance(event.data, x.Output)]
        return b"".join(
            block.text.encode() if block.text is not None else b64decode(block.base64 or "")
            for block in blocks
            if block.stream == stream
        )

    async def ended(self, exec_id: str, within_s: float = WITHIN_S) -> x.Exited:
        def find() -> x.Exited | None:
            return next((event.data for event in self.events(exec_id) if isinstance(event.data, x.Exited)), None)

        return await self.until(find, within_s)

    async def request(self, verb: str, request: Request | None, reply: type[T], timeout_s: float = 10) -> T:
        body = msgspec.json.encode(request) if request is not None else b"{}"
        answer = await self.bus.request(self.subjects.request("runnerd", verb), body, timeout_s=timeout_s)
        return msgspec.json.decode(answer, type=reply)

    async def close(self, exec_id: str) -> None:
        """End an exec in the log, as the spawner does when a boot is confirmed dead."""
        events = self.events(exec_id)
        last_n = events[-1].n or 0
        subject = self.subjects.exec(exec_id)
        lost = x.Lost(boot_id=self.boot_id, last_n=last_n, cause="runnerd_died")
        envelope = codec.seal(
            lost, id=new_id(), source="/spawner", subject=subject, time=datetime.now(UTC), n=last_n + 1
        )
        await self.bus.append(subject, codec.encode(envelope))
