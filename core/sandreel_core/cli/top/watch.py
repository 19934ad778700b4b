"""Reads what the board shows: the log, heartbeats, how full the streams are, how far the views. It only reads."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from importlib.metadata import entry_points

import msgspec
from msgspec import Struct

from sandreel_core.bus.execs import Recorded, Snapshot, follow_execs
from sandreel_core.bus.port import Missing, StreamState
from sandreel_core.cli import lag
from sandreel_core.cli.top.behind import Behind
from sandreel_core.cli.top.board import Board
from sandreel_core.cli.top.start import begin, meet_execs
from sandreel_core.client import Client
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.runnerd import Heartbeat
from sandreel_core.contract.subjects import CMD, DEAD, reel
from sandreel_core.errors import NotFound, SandreelError, Unavailable

_LOOK_S = 1.0  # how often the ends of the streams are looked at
_VIEWS_S = 2.0
_AGAIN_S = 0.5
# After so many events at once the loop draws a frame; a batch has up to 1024.
_BREATHE = 256


class Fill(Struct, frozen=True, kw_only=True):
    """How full a stream is; `share` of its limit in bytes, None where it has none."""

    stream: str
    messages: int
    bytes: int
    share: float | None


class Status(Struct, frozen=True, kw_only=True):
    """What the header says.

    away_s      since the connection to NATS was lost; None while there is one
    behind_s, behind_events   how far this screen itself is behind the log, at most
    missing     ranges of the log that were gone before they could be read
    views       one a partition; empty with `views_why` where they cannot be asked
    loading     what was there before is still being read
    """

    away_s: float | None
    behind_s: float
    behind_events: int
    missing: int
    fills: tuple[Fill, ...]
    dead: int
    views: tuple[lag.Lag, ...]
    views_why: str
    loading: bool


class Watch:
    """`run` it beside whatever shows `board`."""

    def __init__(self, client: Client, board: Board, *, org: str | None = None, dsn: str | None = None) -> None:
        self.board = board
        self._client = client
        self._bus = client.bus
        self._org = org or "*"
        self._dsn = dsn
        self._places: dict[int, Cursor] = {}
        self._behind = [Behind() for _ in range(client.partitions)]
        self._fills: tuple[Fill, ...] = ()
        self._dead = 0
        self._views: tuple[lag.Lag, ...] = ()
        self._views_why = "not asked yet" if dsn else "Postgres is not set"
        self._away_since: float | None = None
        self._missing = 0
        self._caught_up = [asyncio.Event() for _ in range(client.partitions)]
        self._met = asyncio.Event()

    async def run(self) -> None:
        """For ever. Raises (in a group) NotFound where nothing is installed, Malformed when a stream is restored meanwhile."""
        async with asyncio.TaskGroup() as group:
            for partition in range(self._client.partitions):
                group.create_task(self._read(partition))
            group.create_task(self._meet())
            group.create_task(self._look())
            group.create_task(self._hear())
            if self._dsn is not None:
                group.create_task(self._ask_views(self._dsn))

    async def loaded(self) -> None:
        """Returns when everything that was there when it began has been read."""
        for event in (*self._caught_up, self._met):
            await event.wait()

    def status(self, now_s: float) -> Status:
        """`now_s`: of `time.monotonic`."""
        if self._bus.connected:
            self._away_since = None
        elif self._away_since is None:
            self._away_since = now_s
        return Status(
            away_s=None if self._away_since is None else now_s - self._away_since,
            behind_s=max(each.seconds(now_s) for each in self._behind),
            behind_events=sum(each.events() for each in self._behind),
            missing=self._missing,
            fills=self._fills,
            dead=self._dead,
            views=self._views,
            views_why=self._views_why,
            loading=not self._met.is_set() or not all(event.is_set() for event in self._caught_up),
        )

    async def _read(self, partition: int) -> None:
        """Goes on where it was whenever it breaks off: nothing is lost, and nothing taken twice."""
        snapshot: Snapshot | None = None
        while True:
            try:
                if partition not in self._places:
                    place, snapshot = await begin(self._bus, self.board, partition, self._org, self._dsn)
                    self._places[partition] = place
                    self._behind[partition].reached(place.sequence)
                await self._follow(partition, snapshot)
            except Unavailable:
                await asyncio.sleep(_AGAIN_S)
            if partition in self._places:
                snapshot = Snapshot(self._places[partition], *self.board.next_n(partition))

    async def _follow(self, partition: int, snapshot: Snapshot | None) -> None:
        after, taken = self._places[partition], 0
        items = follow_execs(
            self._bus,
            partition,
            [f"evt.{partition}.{'>' if self._org == '*' else f'{self._org}.>'}"],
            after=after,
            snapshot=snapshot,
            on_read=self._behind[partition].reached,
        )
        async with aclosing(items):
            async for item in items:
                if isinstance(item, Recorded):
                    self.board.take(item)
                    self._places[partition] = item.cursor
                    taken += 1
                    if not taken % _BREATHE:
                        await asyncio.sleep(0)
                elif isinstance(item, Missing):
                    self._missing += 1
                else:
                    self._caught_up[partition].set()

    async def _meet(self) -> None:
        for event in self._caught_up:
            await event.wait()
        while not self._met.is_set():
            try:
                await meet_execs(self._client, self.board)
                self._met.set()
            except Unavailable:
                await asyncio.sleep(_AGAIN_S)

    async def _hear(self) -> None:
        decoder = msgspec.json.Decoder(Heartbeat)

        def hear(subject: str, body: bytes) -> None:
            _, org, session = subject.split(".")
            try:
                beat = decoder.decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError):
                return  # a later version's: its session shows as one without heartbeats
            self.board.beat(org, session, beat, time.monotonic())

        async with self._bus.listen(f"hb.{self._org}.*", hear):
            await asyncio.Event().wait()

    async def _look(self) -> None:
        while True:
            try:
                fills = []
                for partition, behind in enumerate(self._behind):
                    looked_s = time.monotonic()
                    last = await self._bus.last(reel(partition), f"evt.{partition}.{self._org}.>")
                    if last is not None and self._caught_up[partition].is_set():
                        behind.saw(last.sequence, looked_s)
                    fills.append(_fill(await self._bus.state(reel(partition))))
                fills.append(_fill(await self._bus.state(CMD)))
                self._fills = tuple(fills)
                self._dead = (await self._bus.state(DEAD)).messages
            except (NotFound, Unavailable):
                pass  # the header says that NATS is away
            await asyncio.sleep(_LOOK_S)

    async def _ask_views(self, dsn: str) -> None:
        while True:
            try:
                self._views = tuple(
                    [each for point in entry_points(group=lag.GROUP) for each in await point.load()(dsn)]
                )
                self._views_why = "" if self._views else "no projector has read the log yet"
            except (ImportError, SandreelError) as error:
                self._views, self._views_why = (), " ".join(str(error).split())
            await asyncio.sleep(_VIEWS_S)


def _fill(state: StreamState) -> Fill:
    share = state.bytes / state.max_bytes if state.max_bytes > 0 else None
    return Fill(stream=state.name, messages=state.messages, bytes=state.bytes, share=share)
