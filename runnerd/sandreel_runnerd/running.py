"""One exec from its start to its acknowledged end: where the pure parts (exec, lines, rate) meet the kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from signal import Signals

from sandreel_core.contract import exec as c
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.runnerd import KeysTaken
from sandreel_core.errors import Denied, Refused, TooLarge
from sandreel_runnerd import process
from sandreel_runnerd.children import Child
from sandreel_runnerd.exec import Life, Timers
from sandreel_runnerd.group import Group
from sandreel_runnerd.host import Host
from sandreel_runnerd.lines import halves
from sandreel_runnerd.memory import oom_kills
from sandreel_runnerd.recorder import Recorder
from sandreel_runnerd.steering import Steering
from sandreel_runnerd.streams import Streams
from sandreel_runnerd.tally import Tally

STEP_BACK_AFTER_S = 0.01
# Of the event loop, until what was recorded is on its socket: the record's, the pipeline's, the connection's.
TURNS_TO_THE_SOCKET = 3


class RunningExec:
    """One exec. The command handler does, in this order:

        running = RunningExec(start, host=…, recorder=…, attended=…)
        await running.prepare(<session's environment>)      # Refused: BAD_REQUEST, INVALID_CWD, SECRET_UNAVAILABLE
        await recorder.accept(Accepted(…), command=…)       # while it waits: running.make_ready()
        exited = await running.run()               # as a task of its own; returns when the end is acknowledged

    or, when it was not accepted, `running.give_up()`.

    The id, its uniqueness and the limit of live execs are the handler's to check, before `prepare`.

    While `run` is under way (from any task; each waits until the process has begun, which takes milliseconds):

        cancel, signal, resize, write_stdin, keys    record what they did, with `command` as the cause
        stop                                         the same as cancel, asked by runnerd's own end
        keepalive, look, hold                        leave no event

    They raise Refused: EXEC_NOT_FOUND once the process has ended, else what each says. Where several events could
    answer, the first that they record is the answer. `run` raises Denied when the recorder says that this boot was
    declared dead; whenever it leaves by an exception, the process group has got SIGKILL and all is closed.
    """

    def __init__(
        self,
        start: c.Start,
        *,
        host: Host,
        recorder: Recorder,
        attended: Callable[[], bool],
    ) -> None:
        """attended: whether runnerd is connected and has read its commands to the end. The orphan timer counts only
        then, so it is asked before anybody is killed; what else it counts is as exact as `look` is frequent."""
        self.start = start
        self._host = host
        self._recorder = recorder
        self._life = Life(
            Timers(
                timeout_s=start.timeout_s,
                no_output_timeout_s=start.no_output_timeout_s,
                orphan_timeout_s=start.orphan_timeout_s,
            )
        )
        self._recipe: process.Recipe | None = None
        self._ends: process.Ends | None = None
        # Counted before it starts: a hog may be killed before this process gets its next turn.
        self._oom_kills_before: int | None = None
        self._child: Child | None = None
        self._group: Group | None = None
        self._streams = Streams(start, host.mask, self._record)
        self._steering = Steering(self._life, self._streams, self._record, attended)
        self._begun = asyncio.Event()
        self._recording = asyncio.Lock()
        self._tally = Tally()
        self._concluding = False

    async def prepare(self, store: Mapping[str, str]) -> None:
        """Check what is asked for; `store` is the session's environment. Raises Refused; nothing has been recorded or started then."""
        self._recipe = await self._host.recipe(self.start, store)

    def make_ready(self) -> None:
        """What a start needs and can be had before: so much less stands between acceptance and start. Once; `run` does it
        when nobody has."""
        if self._ends is None and self._recipe is not None:
            self._oom_kills_before = oom_kills()
            self._ends = process.Ends(self._recipe)

    def give_up(self) -> None:
        """It will not run."""
        self._tear_down()

    async def run(self) -> c.Exited:
        """Start it, record it, and conclude. See the class for what is raised."""
        try:
            exited = await self._run()
            async with self._recording:
                self._concluding = True
                await self._recorder.conclude(exited)
            return exited
        except ExceptionGroup as group:
            denied, others = group.split(Denied)
            if denied is not None and others is None:
                raise Denied("the log takes no more of this exec") from group
            raise
        finally:
            self._tear_down()

    # What others may ask for.

    async def cancel(self, command: Envelope | None = None) -> bool:
        """SIGTERM, and SIGKILL 5 s later. True: an `exec.signalled` names the command. False: there is nothing
        more to do, since it has ended or its end is under way (a cancel is its reason from now on all the same)."""
        await self._begun.wait()
        if not self._alive():
            return False
        return await self._steering.end(self._life.cancel(self._now()), command)

    async def stop(self) -> bool:
        """As `cancel`, because runnerd leaves. Before the process has begun it takes effect when it does."""
        return await self._steering.end(self._life.stop(self._now()), None)

    async def signal(self, name: str, command: Envelope | None = None) -> None:
        """To the process group. Raises Refused: EXEC_NOT_FOUND, BAD_REQUEST for a signal that does not exist."""
        await self._begun.wait()
        try:
            number = Signals[name]
        except KeyError as error:
            raise Refused("BAD_REQUEST", f"there is no signal {name[:20]!r}") from error
        self._check_alive()
        self._steering.send(number)
        await self._record(c.Signalled(signal=name, why="asked"), command)

    async def resize(self, cols: int, rows: int, command: Envelope | None = None) -> None:
        """Raises Refused: EXEC_NOT_FOUND, BAD_REQUEST without a terminal."""
        await self._begun.wait()
        self._check_alive()
        self._streams.resize(cols, rows)
        await self._record(c.Resized(cols=cols, rows=rows), command)

    async def write_stdin(self, data: bytes, eof: bool, command: Envelope | None = None) -> None:
        """Returns when the kernel has all bytes; waits while the program does not read (so: not in a loop that
        serves others). With a terminal, `eof` types Ctrl-D. Raises Refused: STDIN_CLOSED when the input was not
        held, has ended or nobody reads it, STDIN_BUSY with 64 writes waiting, WRITE_FAILED, EXEC_NOT_FOUND."""
        await self._begun.wait()
        self._check_alive()
        event = await self._streams.write(data, eof)
        await self._record(event, command)

    async def keys(self, offset: int, data: bytes, writer: str | None = None) -> KeysTaken:
        """Type into the terminal; how many bytes have been taken (`contract.runnerd.Keys`). What was taken before is
        skipped, and less than all is taken when the program does not read for a second. Raises Refused: BAD_REQUEST
        without a terminal or when keys before `offset` are missing, WRITE_FAILED when it hung up, EXEC_NOT_FOUND."""
        await self._begun.wait()
        self._check_alive()
        return await self._streams.keys(offset, data, writer)

    def keepalive(self) -> None:
        """Its owner still wants it: winds up the orphan timer."""
        self._life.keepalive(self._now())

    def look(self) -> None:
        """Ask whether runnerd is attended; now and then, because nobody says when that changes."""
        self._steering.nudge()

    def hold(self, hold: bool) -> None:
        """Do not read output for now, so that the child waits. What it left in its pipes is read all the same."""
        self._streams.hold(hold)

    # How it runs.

    async def _run(self) -> c.Exited:
        recipe = self._recipe
        assert recipe is not None  # noqa: S101 - prepare has set it
        try:
            self.make_ready()
            child = self._child = self._host.children.start(self._start)
        except (OSError, ValueError) as error:
            self._begun.set()
            message = process.why_not_started(recipe, error)
            return c.Exited(exit_code=None, reason="spawn_failed", message=message, duration_ms=0)
        begun_at = self._now()
        group = self._group = Group(child, boot_marker=self._host.boot_marker, exec_id=self.start.exec)
        # Its start is told first.
        stepping_back = asyncio.get_running_loop().call_later(STEP_BACK_AFTER_S, self._step_back, child)
        self._streams.open(recipe, self._life.output, self._now())
        async with asyncio.TaskGroup() as tasks:
            self._steering.begin(group, tasks)
            tasks.create_task(self._record(process.started(self.start, recipe, child.pid)))
            for _ in range(TURNS_TO_THE_SOCKET):
                await asyncio.sleep(0)
            process.raise_oom_score(child.pid)
            self._steering.apply(self._life.begin(begun_at))
            pumps = [tasks.create_task(output.pump()) for output in self._streams.outputs]
            tasks.create_task(self._await_pumps(pumps))
            left = tasks.create_task(self._await_child(child))
            tasks.create_task(self._streams.begin_input())
            noting = tasks.create_task(self._streams.note_keys())
            self._begun.set()
            await self._steering.keep_time()
            noting.cancel()
            stepping_back.cancel()
            outcome = await group.clear(self.start.leftovers, oom_kills_before=self._oom_kills_before)
            self._streams.close_soon()
        await self._streams.note()
        ending = outcome.ending
        unknown = ending.exit_code is None and ending.signal is None
        return c.Exited(
            exit_code=ending.exit_code,
            signal=ending.signal,
            reason=self._life.reason,
            message="another process took its exit status" if unknown else None,
            oom=outcome.oom,
            duration_ms=round((left.result() - begun_at) * 1000),
            lines={output.stream: output.lines.recorded.lines for output in self._streams.outputs},
            bytes={output.stream: output.lines.recorded.bytes for output in self._streams.outputs},
            masked=any(output.lines.masked for output in self._streams.outputs),
            cpu_ms=ending.cpu_ms,
            max_rss_bytes=ending.max_rss_bytes,
            leftovers=outcome.leftovers,
        )

    def _start(self) -> int:
        assert self._recipe is not None  # noqa: S101
        assert self._ends is not None  # noqa: S101
        spawned = process.spawn(self._recipe, self._ends)
        self._streams.adopt(spawned)
        return spawned.pid

    async def _await_child(self, child: Child) -> float:
        """When the leader's exit was seen."""
        await child.wait()
        now = self._now()
        self._streams.child_left()
        self._steering.apply(self._life.leader_left(now))
        return now

    async def _await_pumps(self, pumps: Sequence[asyncio.Task[None]]) -> None:
        await asyncio.wait(pumps)
        self._steering.apply(self._life.pipes_ended(self._now()))

    async def _record(self, event: c.ExecEvent, command: Envelope | None = None) -> None:
        async with self._recording:
            if self._concluding:
                raise Refused("EXEC_NOT_FOUND", "the exec ended meanwhile")
            await self._take(event, command)

    async def _take(self, event: c.ExecEvent, command: Envelope | None = None) -> None:
        if not isinstance(event, c.Output):
            await self._recorder.record(event, command=command)
            return
        try:
            await self._recorder.record(event)
        except TooLarge:
            for half in halves(event):
                await self._take(half)
        else:
            if (progress := self._tally.add(event)) is not None:
                await self._recorder.record(progress)

    def _step_back(self, child: Child) -> None:
        if not child.released:
            process.lower_priority(child.pid)

    def _alive(self) -> bool:
        return self._child is not None and self._life.leader_lives and not self._child.ended()

    def _check_alive(self) -> None:
        if not self._alive():
            raise Refused("EXEC_NOT_FOUND", "the exec has ended")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _tear_down(self) -> None:
        self._begun.set()
        if self._group is not None:
            self._group.abandon()
        if self._ends is not None:
            self._ends.close()
        self._streams.close()
