"""The outbox: nothing is lost while the bus is away, and every question to the log gets its consequence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import pytest

from sandreel_core.bus.memory import MemoryBus, MemoryServer
from sandreel_core.bus.pipeline import SMALL_MESSAGES
from sandreel_core.contract import exec as c
from sandreel_core.contract.bootstrap import AskLog, LogHead
from sandreel_core.contract.codec import seal
from sandreel_core.contract.message import Envelope
from sandreel_core.errors import Denied, Over, Refused, TooLarge, Unavailable
from sandreel_runnerd.lines import halves
from sandreel_runnerd.outbox import Outbox
from sandreel_runnerd.recorder import Recorder
from sandreel_runnerd.spool import open_spool
from tests.support.execlog import AT, END, EPOCH, REEL, SUBJECTS, Writer, events, heads, line, lines, read

COMMAND = seal(
    c.Start(exec="e1", argv=["true"]),
    id="0198c0de-0000-7000-8000-000000000001",
    source="/client",
    subject=SUBJECTS.command("runnerd", "0198c0de-0000-7000-8000-000000000001"),
    time=AT,
    actor="u1",
)


class World:
    """A server, a runnerd's connection with its outbox, and a spawner that answers `log`."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.runnerd = MemoryBus(self.server)
        self.others = MemoryBus(self.server)
        self.epoch = EPOCH
        self.asked: list[AskLog] = []
        self.dead: list[Denied] = []
        self.heads: list[LogHead] = []
        self.deny = False
        self.forbid = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.outbox: Outbox

    async def answer(self, subject: str, body: bytes) -> bytes:
        self.asked.append(msgspec.json.decode(body, type=AskLog))
        await self.may_answer.wait()
        if self.forbid:
            self.forbid -= 1
            raise Denied("this user may not publish to req.spawner.acme.s1.log")
        if self.deny:
            raise Over("boot b1 was declared dead")
        return await heads(self.others, body, self.epoch)

    async def accepted(self, exec_id: str = "e1") -> Recorder:
        record = self.outbox.recorder(exec_id)
        await record.accept(c.Accepted(boot_id="b1"), command=COMMAND)
        return record


@asynccontextmanager
async def world(spool_bytes: int = 1 << 20) -> AsyncGenerator[World, None]:
    made = World()
    await made.others.ensure([REEL])
    async with (
        asyncio.timeout(30),
        open_spool(spool_bytes) as spool,
        made.others.serve(SUBJECTS.request("spawner", "log"), made.answer),
    ):
        made.outbox = Outbox(
            made.runnerd,
            spool,
            SUBJECTS,
            boot_id="b1",
            epoch=EPOCH,
            on_dead=made.dead.append,
            on_log=made.heads.append,
            ack_timeout_s=0.1,
        )
        async with made.outbox.running():
            yield made


async def test_law_3_an_exec_is_recorded_whole() -> None:
    async with world() as here:
        record = await here.accepted()
        await record.record(c.Started(cwd="/workspace", pid=7, argv=["true"]), command=COMMAND)
        for number in range(1, 201):
            await record.record(line(number))
        await record.conclude(END)
        items = await read(here.others)
        assert lines(items) == list(range(1, 201))
        assert [event.n for event in events(items)] == list(range(1, 204))
        accepted, started, output, *_, exited = events(items)
        assert (accepted.causationid, accepted.actor, accepted.correlationid) == (COMMAND.id, "u1", COMMAND.id)
        assert (started.causationid, output.causationid) == (COMMAND.id, None)
        assert (output.id, output.source) == ("e1-3", "/runnerd/acme/s1/b1")
        assert isinstance(exited.data, c.Exited)
        assert here.outbox.window_messages == here.outbox.spool_bytes == 0


async def test_a_block_over_the_servers_payload_is_not_taken_and_its_halves_are() -> None:
    async with world() as here:
        record = await here.accepted()
        block = c.Output(
            stream="stdout", line=1, count=2, text="\x1b" * 100_000 + "\n" + "\x1b" * 100_000 + "\n", eol=True
        )
        with pytest.raises(TooLarge):
            await record.record(block)
        for half in halves(block):
            await record.record(half)
        await record.conclude(END)
        stored = events(await read(here.others))
        assert [event.n for event in stored] == [1, 2, 3, 4]
        printed = [event.data for event in stored if isinstance(event.data, c.Output)]
        assert [(half.line, half.count) for half in printed] == [(1, 1), (2, 1)]
        assert "".join(half.text or "" for half in printed) == block.text


async def test_law_3_an_outage_of_any_length_loses_nothing() -> None:
    """The window first, then the spool, then what is new; the log is asked before anything is sent again."""
    async with world() as here:
        record = await here.accepted()
        other = await here.accepted("e2")
        await record.record(line(1))
        here.runnerd.go_away()
        for number in range(2, 301):
            await record.record(line(number))
            await other.record(line(number - 1))
        assert here.outbox.spool_bytes > 0
        assert here.outbox.window_messages >= SMALL_MESSAGES
        assert not here.asked
        here.runnerd.come_back()
        await asyncio.gather(record.conclude(END), other.conclude(END))
        assert sorted(here.asked[0].execs) == ["e1", "e2"]
        assert lines(await read(here.others)) == list(range(1, 301))
        assert lines(await read(here.others, "e2")) == list(range(1, 300))
        assert here.outbox.spool_bytes == 0
        assert here.heads[0].execs["e1"].boot_id == "b1"


async def test_a_permission_that_is_missing_for_a_while_kills_no_exec() -> None:
    """Only the spawner's own word ends a boot; NATS may be configured wrongly, and rightly again."""
    async with world() as here:
        record = await here.accepted()
        here.forbid = 2
        here.runnerd.go_away()
        await record.record(line(1))
        here.runnerd.come_back()
        await record.conclude(END)
        assert len(here.asked) == 3
        assert not here.dead
        assert lines(await read(here.others)) == [1]


async def test_law_9_a_full_spool_makes_the_child_wait_and_loses_nothing() -> None:
    async with world(spool_bytes=16 * 1024) as here:
        record = await here.accepted()
        here.runnerd.go_away()
        recorded = 0

        async def child() -> None:
            nonlocal recorded
            for number in range(1, 401):
                await record.record(line(number, 200))
                recorded = number

        async with asyncio.TaskGroup() as group:
            job = group.create_task(child())
            while here.outbox.spool.fits(b"x" * 600):
                await asyncio.sleep(0)
            for _ in range(50):
                await asyncio.sleep(0)
            stuck = recorded
            assert SMALL_MESSAGES < stuck < 200
            assert not job.done()
            here.runnerd.come_back()
        await record.conclude(END)
        assert lines(await read(here.others)) == list(range(1, 401))


async def test_hold_keeps_output_back_and_lets_small_events_of_others_pass() -> None:
    async with world() as here:
        busy, quiet = await here.accepted("e1"), await here.accepted("e2")
        here.outbox.hold(True)
        assert here.outbox.held
        for number in range(1, 101):
            await busy.record(line(number))
        await busy.record(c.Resized(cols=1, rows=1))
        await quiet.record(c.Started(cwd="/workspace", pid=1))
        await quiet.conclude(END)
        assert [type(event.data) for event in events(await read(here.others, "e2"))][-1] is c.Exited
        assert len(events(await read(here.others))) == 1
        here.outbox.hold(False)
        await busy.conclude(END)
        items = await read(here.others)
        assert lines(items) == list(range(1, 101))
        assert isinstance(events(items)[-2].data, c.Resized)  # it has overtaken nothing


async def test_a_start_that_was_stored_without_an_answer_goes_on() -> None:
    async with world() as here:
        here.runnerd.fate = lambda subject, body: "lose_ack" if not here.asked and not stored(here) else None
        record = await here.accepted()
        await record.conclude(END)
        assert [event.n for event in events(await read(here.others))] == [1, 2]


def stored(here: World) -> int:
    return here.server.store.stream(REEL.name).last_sequence


async def test_law_2_an_exec_id_is_used_once() -> None:
    async with world() as here:
        record = await here.accepted()
        with pytest.raises(Refused, match="DUPLICATE_EXEC"):
            here.outbox.recorder("e1")
        await record.conclude(END)
        with pytest.raises(Refused, match="DUPLICATE_EXEC"):
            await here.accepted()
        await here.others.append(SUBJECTS.exec("e3"), Writer("e3").body(c.Accepted(boot_id="b0"), 1))
        with pytest.raises(Refused, match="DUPLICATE_EXEC"):
            await here.accepted("e3")
        assert len(events(await read(here.others))) == 2


async def test_another_boots_accept_after_a_lost_answer_is_a_duplicate() -> None:
    async with world() as here:
        tries = iter(["lose"])

        def fate(subject: str, body: bytes) -> Unavailable | None:
            if next(tries, None):
                here.server.store.stream(REEL.name).append(subject, theirs, None, None)
                return Unavailable("no answer")
            return None

        theirs = Writer().body(c.Accepted(boot_id="b0"), 1)
        here.runnerd.fate = fate
        with pytest.raises(Refused, match="DUPLICATE_EXEC"):
            await here.accepted()


async def test_a_boot_that_was_declared_dead_is_told_once_and_sends_nothing() -> None:
    async with world() as here:
        record, other = await here.accepted(), await here.accepted("e2")
        here.runnerd.go_away()
        await record.record(line(1))
        here.deny = True
        last = stored(here)
        async with asyncio.TaskGroup() as group:
            ends = group.create_task(raises_denied(other.conclude(END)))
            here.runnerd.come_back()
        assert ends.done()
        with pytest.raises(Denied):
            await record.record(line(2))
        with pytest.raises(Denied):
            here.outbox.recorder("e4")
        assert len(here.dead) == 1
        assert stored(here) == last


async def raises_denied(work: object) -> None:
    with pytest.raises(Denied):
        await work  # type: ignore[misc]


async def test_a_hole_in_a_restored_stream_is_explained() -> None:
    async with world() as here:
        record = await here.accepted()
        for number in range(1, 11):
            await record.record(line(number))
        while here.outbox.window_messages:
            await here.outbox.pipeline.changed()
        here.runnerd.go_away()
        for number in range(11, 101):
            await record.record(line(number))
        stream = here.server.store.stream(REEL.name)
        for sequence in range(6, 12):  # n 6 to 11 are gone
            stream.remove(sequence)
        here.epoch = "ep1"
        here.runnerd.come_back()
        await record.conclude(END)
        items = await read(here.others)
        gap = next(event for event in events(items) if isinstance(event.data, c.Gap))
        assert gap.data.from_n == 6
        assert "came back" in gap.data.why
        assert lines(items) == [1, 2, 3, 4, *range(11, 101)]
        assert isinstance(events(items)[-1].data, c.Exited)
        assert len(here.asked) == 1


@pytest.mark.parametrize("kept", [0, 1, 4, 6, 7], ids="the log keeps {}".format)
async def test_law_2_an_end_that_a_restored_stream_lacks_is_stored_again(kept: int) -> None:
    """Of accepted, five lines and the end (n 1 to 7) the log comes back with the first few."""
    async with world() as here:
        record = await here.accepted()
        for number in range(1, 6):
            await record.record(line(number))
        await record.conclude(END)
        here.runnerd.go_away()
        stream = here.server.store.stream(REEL.name)
        for sequence in range(kept + 1, 8):
            stream.remove(sequence)
        here.epoch = "ep1"
        here.runnerd.come_back()
        found: list[Envelope] = []
        while not found or not isinstance(found[-1].data, c.Exited):
            await asyncio.sleep(0.01)  # an end is stored again by nobody's leave
            found = events(await read(here.others))
        assert found[-1].data == END
        gaps = [event for event in found if isinstance(event.data, c.Gap)]
        assert [(gap.data.from_n, gap.n - gap.data.to_n) for gap in gaps] == ([(kept + 1, 1)] if kept < 6 else [])
        if kept == 0:
            assert (gaps[0].causationid, gaps[0].actor) == (COMMAND.id, "u1"), "the command has its one outcome"
        here.runnerd.go_away()
        here.epoch = "ep2"
        here.runnerd.come_back()
        while len(here.heads) < 2:
            await here.outbox.pipeline.changed()
        assert [event.n for event in events(await read(here.others))] == [event.n for event in found], "once"


async def test_an_exec_that_is_accepted_while_the_log_answers_has_no_hole() -> None:
    async with world() as here:
        record = await here.accepted()
        here.runnerd.go_away()
        here.may_answer.clear()
        here.epoch = "ep1"
        here.runnerd.come_back()
        while not here.asked:
            await asyncio.sleep(0)
        late = await here.accepted("e2")
        here.may_answer.set()
        await asyncio.gather(record.conclude(END), late.conclude(END))
        assert here.asked[0].execs == ["e1"]
        for exec_id in ("e1", "e2"):
            assert [event.n for event in events(await read(here.others, exec_id))] == [1, 2]


async def test_what_the_log_has_is_not_sent_again() -> None:
    async with world() as here:
        record = await here.accepted()
        here.runnerd.fate = lambda subject, body: "lose_ack"
        await record.record(line(1))
        while stored(here) < 2:
            await asyncio.sleep(0)
        here.runnerd.go_away()
        here.runnerd.fate = lambda subject, body: None
        here.runnerd.come_back()
        await record.conclude(END)
        assert stored(here) == 3


async def test_a_refused_event_is_a_gap_and_the_exec_goes_on() -> None:
    async with world() as here:
        record = await here.accepted()
        await record.record(line(1))
        await record.record(c.Started(cwd="/workspace", pid=7, argv=["x" * (2 << 20)]))
        await record.record(line(2))
        await record.conclude(END)
        items = await read(here.others)
        assert lines(items) == [1, 2]
        assert any(isinstance(event.data, c.Gap) and event.data.from_n == 3 for event in events(items))
