"""One exec, to somebody who may steer it."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from sandreel_core.bus.port import Bus
from sandreel_core.client.commands import Commands, Order, Outcome
from sandreel_core.client.items import ExecItem
from sandreel_core.client.keyboard import Keyboard
from sandreel_core.client.recorder import Recorder
from sandreel_core.client.reels import Reels
from sandreel_core.client.result import DEFAULT_MAX_BYTES, Collection, Result
from sandreel_core.client.viewer import view
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.runnerd import MAX_KEYS_BYTES, Keys, KeysTaken
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Malformed, Refused, Unavailable


class ExecHandle:
    """Made by `Client.exec`, or by `Client.handle` for an exec that is there already.

    Every method that sends a command returns its outcome, or raises Refused (EXEC_NOT_FOUND, STDIN_CLOSED,
    WRITE_FAILED, BAD_REQUEST, …) and, when no answer comes in time, Unavailable.
    """

    def __init__(
        self,
        bus: Bus,
        recorder: Recorder,
        commands: Commands,
        reels: Reels,
        subjects: SessionSubjects,
        exec_id: str,
        *,
        answer_timeout_s: float,
        accepted: Outcome | None = None,
    ) -> None:
        self._bus = bus
        self._recorder = recorder
        self._commands = commands
        self._reels = reels
        self._subjects = subjects
        self._answer_timeout_s = answer_timeout_s
        self.id = exec_id
        self.accepted = accepted

    @property
    def session(self) -> str:
        return self._subjects.session

    @property
    def cursor(self) -> Cursor | None:
        """Where the exec's log began, for the one who started it."""
        return self.accepted.cursor if self.accepted else None

    def follow(self, after: Cursor | None = None, *, live: bool = True) -> AsyncGenerator[ExecItem, None]:
        """Its items behind `after` (None: from the beginning), until its end; with `live=False`, until now.

        No seam over reconnects, nothing twice, nothing left out. Raises Malformed for a cursor of another
        stream. Close it (`contextlib.aclosing`) unless it is read to its end.
        """
        return view(self._bus, self._reels, self._subjects, self.id, after=after, live=live)

    async def wait(self) -> Result:
        """How it ended. Nothing that it printed is kept; the lines are counted."""
        return await self.collect(max_bytes=0)

    async def collect(self, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Result:
        """How it ended, and the first `max_bytes` of each stream. Waits as long as it runs: put
        `asyncio.timeout` around it, which leaves the exec alone."""
        collection = Collection(self.id, max_bytes)
        async with aclosing(self.follow()) as items:
            async for item in items:
                if (result := collection.take(item)) is not None:
                    return result
        raise Unavailable(f"the log of exec {self.id} ended before the exec")

    async def cancel(self, *, command_id: str | None = None) -> Outcome:
        """SIGTERM to its process group, SIGKILL 5 s later."""
        return await self._ask(x.Cancel(exec=self.id), command_id)

    async def signal(self, name: str, *, command_id: str | None = None) -> Outcome:
        """Send `SIGINT` or another signal to its process group."""
        return await self._ask(x.Signal(exec=self.id, signal=name), command_id)

    async def write_stdin(
        self, data: bytes | str = b"", *, eof: bool = False, command_id: str | None = None
    ) -> Outcome:
        """Append at most 64 KiB to its input, or end it. The outcome means that the pipe has taken it."""
        raw = data.encode() if isinstance(data, str) else data
        if len(raw) > x.MAX_STDIN_BYTES:
            raise Refused("BAD_REQUEST", f"one write is at most {x.MAX_STDIN_BYTES} bytes, not {len(raw)}")
        text, encoded = stdin_fields(raw)
        return await self._ask(x.WriteStdin(exec=self.id, text=text, base64=encoded, eof=eof), command_id)

    async def resize(self, cols: int, rows: int) -> Outcome:
        """Tell its terminal that it has another size, in character cells."""
        return await self._ask(x.Resize(exec=self.id, cols=cols, rows=rows))

    async def keepalive(self) -> Outcome:
        """Wind its orphan timer up again."""
        return await self._ask(x.Keepalive(exec=self.id))

    async def keys(self, data: bytes, *, offset: int) -> int:
        """Type at its terminal. `offset` is how many bytes were typed before: what was taken already is
        skipped, so a repeat is harmless. Returns how many have been taken in all. Stored nowhere (law 6).
        For one writer alone: `keyboard` is for everybody else.

        Raises NotFound when nobody serves the session, Unavailable when no answer comes, Refused.
        """
        return (await self.type(data, offset=offset)).offset

    async def type(
        self, data: bytes, *, offset: int, writer: str | None = None, timeout_s: float | None = None
    ) -> KeysTaken:
        """`keys`, as the writer of this id, whose offsets are its own (`contract.runnerd.Keys`)."""
        if len(data) > MAX_KEYS_BYTES:
            raise Refused("BAD_REQUEST", f"at most {MAX_KEYS_BYTES} bytes are typed at once, not {len(data)}")
        request = Keys(exec=self.id, offset=offset, writer=writer, base64=base64.b64encode(data).decode())
        body = msgspec.json.encode(request)
        reply = await self._recorder.ask("keys", body, timeout_s=timeout_s or self._answer_timeout_s)
        try:
            return msgspec.json.decode(reply, type=KeysTaken)
        except msgspec.DecodeError as error:
            raise Malformed(f"the answer to typed input is not in order: {error}") from error

    def keyboard(self) -> Keyboard:
        """For whoever types: in order, each key once, kept while the bus is away. Run it beside `follow`."""
        return Keyboard(self.type)

    async def _ask(self, command: x.ExecCommand, command_id: str | None = None) -> Outcome:
        order = Order(self._subjects, command, command_id=command_id)
        return await self._commands.ask(order, timeout_s=self._answer_timeout_s)


def stdin_fields(data: bytes) -> tuple[str | None, str | None]:
    """(text, base64) for bytes of input: readable in the log where they are UTF-8."""
    if not data:
        return None, None
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(data).decode()
