"""Everything that execs record, on its way into the log: window, spool, and what to say after a reconnection.

Per exec the order is: the unacknowledged window in memory, then what is spooled, then what is new. Nothing
overtakes. The spool is used while the bus is away or output is held; when it is full too, the child waits.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import msgspec

from sandreel_core.bus.backoff import backoff_s
from sandreel_core.bus.pipeline import ACK_TIMEOUT_S, Pipeline
from sandreel_core.bus.port import Bus
from sandreel_core.contract.bootstrap import AskLog, ExecHead, LogHead
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Denied, NotFound, Over, Refused, SandreelError, Unavailable
from sandreel_core.log import Log
from sandreel_runnerd.exec_record import Concluded, ExecRecord
from sandreel_runnerd.spool import Spool

# The log's answer may lag for a moment behind what it acknowledged. A hole in a stream of the same epoch is
# believed only when it is told three times in a row.
_DISPUTES = 3
_ASK_TIMEOUT_S = 5.0
# Ends that are kept for a log that comes back from a backup without them: about 1 KB each. As many as a spawner keeps
# heads of (`spawner/heads.py`); what ended before those is closed as lost with its boot.
MAX_CONCLUDED = 1024

OnDead = Callable[[Denied], None]
OnLog = Callable[[LogHead], None]


class Outbox:
    """One for a runnerd. Open it with `async with outbox.running():`, after the bootstrap.

    epoch    of the session's partition, as the bootstrap told it
    on_dead  called at most once, when the log says that this boot was declared dead; every record then raises Denied
    on_log   called with every answer to the question that is asked after a reconnection
    """

    def __init__(
        self,
        bus: Bus,
        spool: Spool,
        subjects: SessionSubjects,
        *,
        boot_id: str,
        epoch: str,
        on_dead: OnDead,
        on_log: OnLog | None = None,
        ack_timeout_s: float = ACK_TIMEOUT_S,
    ) -> None:
        self.bus = bus
        self.spool = spool
        self.subjects = subjects
        self.boot_id = boot_id
        self.source = f"/runnerd/{subjects.org}/{subjects.session}/{boot_id}"
        self.held = False
        self.dead: Denied | None = None
        self.pipeline = Pipeline(bus, greet=self._greet, ack_timeout_s=ack_timeout_s)
        self._epoch = epoch
        self._on_dead = on_dead
        self._on_log = on_log
        self._records: dict[str, ExecRecord] = {}
        self._owners: dict[int, ExecRecord] = {}
        self._next_owner = 0
        self._concluded: OrderedDict[str, Concluded] = OrderedDict()
        self._revived: set[asyncio.Task[None]] = set()
        self._spooled = asyncio.Event()
        self._log = Log("outbox")

    @property
    def window_messages(self) -> int:
        """Unacknowledged messages in memory."""
        return self.pipeline.messages

    @property
    def spool_bytes(self) -> int:
        return self.spool.used_bytes

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Outbox, None]:
        async with self.pipeline.running(), asyncio.TaskGroup() as group:
            drain = group.create_task(self._drain())
            try:
                yield self
            finally:
                for task in (drain, *self._revived):
                    task.cancel()
                await asyncio.gather(*self._revived, return_exceptions=True)

    def recorder(self, exec_id: str) -> ExecRecord:
        """The record of one exec, which removes itself when it is concluded, refused or closed.
        Raises Refused(DUPLICATE_EXEC) while there is one of that id, Denied when this boot is dead."""
        if self.dead is not None:
            raise Denied(str(self.dead))
        if exec_id in self._records:
            raise Refused("DUPLICATE_EXEC", f"exec {exec_id} is running")
        self._next_owner += 1
        record = self._records[exec_id] = ExecRecord(self, exec_id, self._next_owner)
        self._owners[self._next_owner] = record
        return record

    def remove(self, record: ExecRecord) -> None:
        if self._records.get(record.exec_id) is record:
            del self._records[record.exec_id]
            del self._owners[record.owner]

    def remember(self, concluded: Concluded) -> None:
        """The end of an exec, acknowledged."""
        self._concluded[concluded.exec_id] = concluded
        while len(self._concluded) > MAX_CONCLUDED:
            self._concluded.popitem(last=False)

    def hold(self, on: bool) -> None:
        """The stream is nearly full: output goes to the spool, and children wait when that is full; the small
        events of execs that have nothing spooled still pass."""
        self.held = on
        self.pipeline.notify()

    def spooled(self) -> None:
        """Something is in the spool."""
        self._spooled.set()

    async def ask_log(self, exec_ids: list[str]) -> LogHead:
        """What the log holds. Asked until there is an answer. Raises Over when this boot was declared dead."""
        question = msgspec.json.encode(AskLog(boot_id=self.boot_id, execs=exec_ids))
        subject = self.subjects.request("spawner", "log")
        failures = 0
        while True:
            try:
                answer = await self.bus.request(subject, question, timeout_s=_ASK_TIMEOUT_S)
                return msgspec.json.decode(answer, type=LogHead)
            except Over as error:
                self._die(error)
                raise
            except (SandreelError, msgspec.DecodeError) as error:
                if failures == 0 or not isinstance(error, Unavailable | NotFound):
                    self._log.warning("the log does not answer", why=str(error))
            await asyncio.sleep(backoff_s(failures))
            failures += 1

    async def _greet(self) -> None:
        """Design §3: before anything is sent again, learn whose the execs are and what the log has of them."""
        for dispute in range(1, _DISPUTES + 1):
            # Only those that are asked about: what is accepted while the log answers is stored as it should be.
            asked = [record for record in self._records.values() if record.accepted]
            head = await self.ask_log([record.exec_id for record in asked])
            restored = head.epoch != self._epoch
            live = [record for record in asked if self._records.get(record.exec_id) is record]
            records = [(record, head.execs.get(record.exec_id, ExecHead())) for record in live]
            if restored or dispute == _DISPUTES or not any(r.disputes(exec_head) for r, exec_head in records):
                break
            await asyncio.sleep(backoff_s(dispute + 1))
        if restored:
            self._log.warning("the stream was restored", epoch=head.epoch, before=self._epoch)
            self._epoch = head.epoch
        for record, exec_head in records:
            record.reconcile(exec_head)
        if restored and self._concluded:
            await self._revive()
        if self._on_log is not None:
            self._on_log(head)

    async def _revive(self) -> None:
        """Law 2: an end that the restored log lacks is stored again, behind a gap for what went with it."""
        head = await self.ask_log(list(self._concluded))
        for concluded in list(self._concluded.values()):
            known = head.execs.get(concluded.exec_id, ExecHead())
            mine = known.boot_id in (None, self.boot_id)
            if known.ended or not mine or concluded.exec_id in self._records:
                continue
            del self._concluded[concluded.exec_id]
            self._next_owner += 1
            record = ExecRecord(self, concluded.exec_id, self._next_owner, next_n=concluded.n)
            self._records[concluded.exec_id] = self._owners[self._next_owner] = record
            record.revive(concluded, known)
            task = asyncio.ensure_future(record.see_out())
            self._revived.add(task)
            task.add_done_callback(self._revived.discard)

    def _die(self, error: Denied) -> None:
        if self.dead is None:
            self.dead = error
            for record in list(self._records.values()):
                record.fail(error)
            self._on_dead(error)

    async def _drain(self) -> None:
        """The spool goes into the windows again, oldest first, as soon as they take it."""
        changed = self.pipeline.changed
        while True:
            await self._spooled.wait()
            while self.held or not self.pipeline.is_open:
                await changed()
            records = await self.spool.take()
            if not records:
                self._spooled.clear()
            for owner, n, body in records:
                while (record := self._owners.get(owner)) is not None and not record.unspool(body, n):
                    await changed()
            self.pipeline.notify()
