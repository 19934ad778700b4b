"""The live execs of one runnerd: who may start, and each one's commands in their order, independent of the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from sandreel_core.contract import exec as c
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.runnerd import KeysTaken
from sandreel_core.errors import Denied, Over, Refused
from sandreel_core.log import Log
from sandreel_runnerd.activity import Activity
from sandreel_runnerd.answers import Answers
from sandreel_runnerd.host import Host
from sandreel_runnerd.process import input_bytes
from sandreel_runnerd.recorder import Recorder
from sandreel_runnerd.running import TURNS_TO_THE_SOCKET, RunningExec

# Commands to one exec that have no outcome yet; more are refused, but for a first cancel.
MAX_WAITING = 256
# A write waits for as long as the program does not read, and every outcome for room in the log; what is asked later goes
# by them so long after it came, for otherwise a cancel could never end a program that does not read.
OVERTAKE_AFTER_S = 0.25
# Of its acceptance: a start is on its socket by then, and no exec has ended.
LOG_AFTER_S = 0.002
# What was asked of an exec that has just ended is answered within this.
LEAVE_WITHIN_S = 2.0


class Record(Recorder, Protocol):
    """What the outbox makes for an exec."""

    def fail(self, failure: Denied) -> None:
        """Give the record up, before or after it was accepted."""


class Records(Protocol):
    """What of the outbox is needed here."""

    def recorder(self, exec_id: str) -> Record: ...


class Lane:
    """One live exec with the commands that wait for it."""

    def __init__(self, start: Envelope, running: RunningExec, record: Record) -> None:
        self.start = start
        self.running = running
        self.record = record
        # With the time when each came; None ends it. Bounded by `Execs.route`.
        self.waiting: asyncio.Queue[tuple[Envelope, float] | None] = asyncio.Queue()
        self.acting: set[asyncio.Task[None]] = set()
        self.cancelled = False
        # Set when the exec was accepted, or will never be.
        self.decided = asyncio.Event()
        self.accepted = False
        self.task: asyncio.Task[None] | None = None


class Execs:
    """`group` owns a task for every exec."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        records: Records,
        host: Host,
        answers: Answers,
        activity: Activity,
        *,
        boot_id: str,
        limit: int,
        log: Log,
        attended: Callable[[], bool],
    ) -> None:
        """attended: see `RunningExec`."""
        self._group = group
        self._records = records
        self._host = host
        self._answers = answers
        self._activity = activity
        self._boot_id = boot_id
        self._limit = limit
        self._log = log
        self._lanes: dict[str, Lane] = {}
        self._held = False
        self._attended = attended
        self._stopping = False

    @property
    def live(self) -> list[str]:
        """Ids of the execs that were accepted, or are about to be, and have not ended."""
        return list(self._lanes)

    async def start(
        self, envelope: Envelope, start: c.Start, store: Mapping[str, str] | asyncio.Future[dict[str, str]]
    ) -> None:
        """Begin one, in the session's environment `store`, for which it waits if need be. Raises Refused: DUPLICATE_EXEC, EXEC_LIMIT, SESSION_NOT_READY while runnerd leaves; what is found
        out later is answered later."""
        if self._stopping:
            raise Refused("SESSION_NOT_READY", "the session is being stopped")
        if start.exec in self._lanes:
            raise Refused("DUPLICATE_EXEC", f"exec {start.exec} is running")
        if len(self._lanes) >= self._limit:
            raise Refused("EXEC_LIMIT", f"{self._limit} execs are live, which is the session's limit")
        try:
            record = self._records.recorder(start.exec)
        except Denied as error:
            raise Refused("SESSION_NOT_READY", "this boot of the session is over") from error
        running = RunningExec(start, host=self._host, recorder=record, attended=self._attended)
        running.hold(self._held)
        lane = self._lanes[start.exec] = Lane(envelope, running, record)
        lane.task = self._group.create_task(self._live(lane, start, store))

    def route(self, envelope: Envelope, command: c.ExecCommand) -> None:
        """Hand a command to its exec. Raises Refused: EXEC_NOT_FOUND, EXEC_BUSY."""
        lane = self._lanes.get(command.exec)
        if lane is None:
            raise Refused("EXEC_NOT_FOUND", f"no exec {command.exec} is live")
        if isinstance(command, c.Keepalive):
            # At once: it must not come too late because others wait. Only its outcome has to stand in line.
            lane.running.keepalive()
        first_cancel = isinstance(command, c.Cancel) and not lane.cancelled
        if lane.waiting.qsize() + len(lane.acting) >= MAX_WAITING and not first_cancel:
            raise Refused("EXEC_BUSY", f"{MAX_WAITING} commands wait for exec {command.exec}")
        lane.cancelled = lane.cancelled or first_cancel
        lane.waiting.put_nowait((envelope, self._now()))

    async def keys(self, exec_id: str, offset: int, data: bytes, writer: str | None) -> KeysTaken:
        """See `RunningExec.keys`."""
        lane = self._lanes.get(exec_id)
        if lane is not None:
            await lane.decided.wait()
        if lane is None or not lane.accepted:
            raise Refused("EXEC_NOT_FOUND", f"no exec {exec_id} is live")
        return await lane.running.keys(offset, data, writer)

    def hold(self, hold: bool) -> None:
        self._held = hold
        for lane in self._lanes.values():
            lane.running.hold(hold)

    def look(self) -> None:
        """See `RunningExec.look`."""
        for lane in self._lanes.values():
            lane.running.look()

    async def stop(self, within_s: float) -> None:
        """End all of them; returns when their ends are acknowledged, or after `within_s`."""
        self._stopping = True
        lanes = list(self._lanes.values())
        if not lanes:
            return
        stops = [asyncio.ensure_future(lane.running.stop()) for lane in lanes]
        tasks = [lane.task for lane in lanes if lane.task is not None]
        try:
            await asyncio.wait(tasks, timeout=within_s)
        finally:
            for stop in stops:
                stop.cancel()
            await asyncio.gather(*stops, return_exceptions=True)
            for task in tasks:
                task.cancel()

    async def _live(
        self, lane: Lane, start: c.Start, store: Mapping[str, str] | asyncio.Future[dict[str, str]]
    ) -> None:
        commands: asyncio.Task[None] | None = None
        try:
            if isinstance(store, asyncio.Future):
                store = await asyncio.shield(store)  # others wait for it too
            if not await self._accept(lane, start, store):
                return
            commands = asyncio.ensure_future(self._obey(lane))
            exited = await lane.running.run()
            self._log.info(
                "exec ended", exec=start.exec, code=exited.exit_code, signal=exited.signal, reason=exited.reason
            )
        except Denied as error:
            # This boot is over (then the outbox has said so), or somebody else has the exec: it is not ours to end.
            self._log.error("an exec may not be recorded", exec=start.exec, problem=str(error))
        except Exception:  # noqa: BLE001 - a mistake of ours in one exec must not end the others
            # How it ended is not known and is not made up: it stays open until this boot ends.
            self._log.exception("an exec broke", exec=start.exec)
            lane.record.fail(Denied("runnerd could not go on with the exec"))
            if not lane.accepted:
                problem = Refused("INTERNAL", "runnerd could not start the exec; its log says why")
                await self._answers.refuse(lane.start.id, problem, lane.start)
        finally:
            if self._lanes.get(start.exec) is lane:
                del self._lanes[start.exec]
            self._activity.touch()
            lane.decided.set()
            await self._leave(lane, commands)

    async def _accept(self, lane: Lane, start: c.Start, store: Mapping[str, str]) -> bool:
        try:
            await lane.running.prepare(store)
            await self._record(lane)
        except Over:
            raise  # the spawner, who said so, answers for this boot
        except (Refused, Denied) as error:
            lane.record.fail(Denied("the exec was refused"))
            refusal = (
                error if isinstance(error, Refused) else Refused("RECORD_DENIED", f"it may not be recorded: {error}")
            )
            await self._answers.refuse(lane.start.id, refusal, lane.start)
            return False
        finally:
            if not lane.accepted:
                lane.running.give_up()
        asyncio.get_running_loop().call_later(LOG_AFTER_S, partial(self._log.info, "exec accepted", exec=start.exec))
        lane.decided.set()
        return True

    async def _record(self, lane: Lane) -> None:
        """That it is accepted. It is made ready while the log stores that."""
        recording = asyncio.ensure_future(lane.record.accept(c.Accepted(boot_id=self._boot_id), command=lane.start))
        try:
            for _ in range(TURNS_TO_THE_SOCKET):
                await asyncio.sleep(0)
            with contextlib.suppress(OSError):  # it is told by the start, which will meet it too
                lane.running.make_ready()
            await recording
            lane.accepted = True
        finally:
            recording.cancel()

    async def _leave(self, lane: Lane, commands: asyncio.Task[None] | None) -> None:
        """Whoever still waits gets an answer: nobody can join, for the lane is not in the list any more."""
        lane.waiting.put_nowait(None)
        if commands is None:
            commands = asyncio.ensure_future(self._obey(lane))
        try:
            async with asyncio.timeout(LEAVE_WITHIN_S):
                await commands
        except TimeoutError:
            self._log.error("commands to an ended exec have no answer", exec=lane.running.start.exec)

    async def _obey(self, lane: Lane) -> None:
        """The exec's commands in their order, but that none waits long behind another. Writes keep their order
        among themselves (`Input`), and so need not wait for each other here."""
        writes: set[asyncio.Task[None]] = set()
        try:
            while (asked := await lane.waiting.get()) is not None:
                envelope, came_at = asked
                is_write = isinstance(envelope.data, c.WriteStdin)
                if before := lane.acting - writes if is_write else lane.acting:
                    await asyncio.wait(before, timeout=max(0.0, came_at + OVERTAKE_AFTER_S - self._now()))
                act = asyncio.ensure_future(self._act(lane, envelope))
                for tasks in (lane.acting, writes) if is_write else (lane.acting,):
                    tasks.add(act)
                    act.add_done_callback(tasks.discard)
            if lane.acting:
                await asyncio.wait(lane.acting)
        finally:
            for act in lane.acting:
                act.cancel()

    async def _act(self, lane: Lane, envelope: Envelope) -> None:
        """One command with its outcome. Never raises."""
        try:
            if not lane.accepted:
                raise Refused("EXEC_NOT_FOUND", "the exec was refused")
            await self._do(lane.running, envelope)
        except Refused as refusal:
            await self._answers.refuse(envelope.id, refusal, envelope)
        except Denied:
            gone = Refused("EXEC_NOT_FOUND", "the exec's record is closed")
            await self._answers.refuse(envelope.id, gone, envelope)
        except Exception:  # noqa: BLE001 - a mistake of ours in one command must not end the exec
            self._log.exception("a command failed", command=envelope.id)
            problem = Refused("INTERNAL", "runnerd could not handle the command; its log says why")
            await self._answers.refuse(envelope.id, problem, envelope)

    async def _do(self, running: RunningExec, envelope: Envelope) -> None:
        match envelope.data:
            case c.WriteStdin() as write:
                if write.text is None and write.base64 is None and not write.eof:
                    raise Refused("BAD_REQUEST", "give text, base64 or eof")
                await running.write_stdin(input_bytes(write.text, write.base64), write.eof, envelope)
                self._activity.touch()
            case c.Signal(signal=name):
                await running.signal(name, envelope)
            case c.Cancel():
                self._activity.touch()
                if not await running.cancel(envelope):
                    await self._answers.settle(envelope, "the exec's end is under way")
            case c.Resize(cols=cols, rows=rows):
                await running.resize(cols, rows, envelope)
            case c.Keepalive():
                await self._answers.settle(envelope)  # it took effect when it came
            case _:
                raise Refused("BAD_REQUEST", f"{envelope.type} is not a command to an exec")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
