"""What one transaction writes, and the rows that the folds go on from. No IO: `writer` loads and stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from sandreel_core.bus.port import Stored
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.exec import Output
from sandreel_core.errors import Malformed
from sandreel_projections import execs, sessions
from sandreel_projections.blocks import Block, block
from sandreel_projections.change import Change, change, instant, text
from sandreel_projections.execs import ExecRow
from sandreel_projections.sessions import SessionRow

# Bytes of a quarantined body that are kept: the server's default payload, so nearly always all of it.
MAX_BODY_BYTES = 1 << 20

# partition, epoch, sequence, cursor, subject, reason, body, at
Quarantined = tuple[int, str, int, str, str, str, bytes, datetime]


@dataclass(slots=True)
class Batch:
    """Everything between two cursors of one partition. `sequence` and `at` are those of its last event."""

    before: int
    sequence: int = 0
    at: datetime | None = None
    sessions: dict[tuple[str, str, int], SessionRow] = field(default_factory=dict)
    execs: dict[execs.Key, ExecRow] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    events: int = 0


class Views:
    """The newest rows of what was written lately, at most `limit` of each kind beside those in use."""

    def __init__(self, partition: int, epoch: str, *, limit: int = 20_000) -> None:
        self.partition = partition
        self.epoch = epoch
        self._limit = limit
        self._execs: dict[execs.Key, ExecRow | None] = {}
        self._sessions: dict[sessions.Key, SessionRow | None] = {}

    def unknown(self, changes: Iterable[Change]) -> tuple[set[execs.Key], set[sessions.Key]]:
        """The execs and sessions whose rows must be loaded before these changes can be applied."""
        wanted_execs: set[execs.Key] = set()
        wanted_sessions: set[sessions.Key] = set()
        for each in changes:
            aggregate = each.where.aggregate
            if aggregate == "exec" and (key := execs.key(each)) not in self._execs:
                wanted_execs.add(key)
            elif aggregate == "session" and (name := sessions.key(each)) not in self._sessions:
                wanted_sessions.add(name)
        return wanted_execs, wanted_sessions

    def learn(
        self, found_execs: Mapping[execs.Key, ExecRow | None], found_sessions: Mapping[sessions.Key, SessionRow | None]
    ) -> None:
        """Rows as they are stored; None for what has none."""
        self._execs.update(found_execs)
        self._sessions.update(found_sessions)

    def reset(self) -> None:
        """Know nothing any more: every row is loaded again."""
        self._execs.clear()
        self._sessions.clear()

    def forget(self, unwritten: Batch | None) -> None:
        """Drop the rows that were not used for longest, but none of a batch that is still being written."""
        kept_execs = unwritten.execs if unwritten else {}
        kept_sessions = {key[:2] for key in unwritten.sessions} if unwritten else set()
        for key in list(islice(self._execs, max(0, len(self._execs) - self._limit))):
            if key not in kept_execs:
                del self._execs[key]
        for name in list(islice(self._sessions, max(0, len(self._sessions) - self._limit))):
            if name not in kept_sessions:
                del self._sessions[name]

    def decode(self, stored: Stored, batch: Batch) -> Change | None:
        """The change that a message is; None, and a row of quarantine, for what is no event."""
        try:
            return change(stored, self.epoch)
        except Malformed as error:
            self.quarantine(stored, str(error), batch)
            return None

    def apply(self, stored: Stored, change: Change, batch: Batch) -> None:
        """Fold one change into the rows, and note in `batch` what has to be written."""
        aggregate = change.where.aggregate
        if aggregate == "exec":
            self._apply_exec(stored, change, batch)
        elif aggregate == "session":
            self._apply_session(stored, change, batch)
        elif change.problem:
            self.quarantine(stored, change.problem, batch)

    def poison(self, stored: Stored, change: Change | None, reason: str, batch: Batch) -> None:
        """Step over an event whose rows the database refused: its ordinal counts, its content is quarantined."""
        self.quarantine(stored, reason, batch)
        if change is not None and change.where.aggregate == "exec":
            key = execs.key(change)
            row = execs.follow(self._execs.get(key), change)
            if row is not None:
                self._keep(key, execs.unreadable(row), batch)

    def quarantine(self, stored: Stored, reason: str, batch: Batch) -> None:
        cursor = str(Cursor(self.epoch, self.partition, stored.sequence))
        subject, body = text(stored.subject) or "", stored.body[:MAX_BODY_BYTES]
        row = (self.partition, self.epoch, stored.sequence, cursor, subject, text(reason[:4096]) or "", body)
        batch.quarantined.append((*row, instant(stored.time_ns)))

    def _apply_exec(self, stored: Stored, change: Change, batch: Batch) -> None:
        key = execs.key(change)
        before = self._execs.get(key)
        row = execs.follow(before, change)
        if row is None:
            return
        data = change.data
        if isinstance(data, Output):
            try:
                made = block(before, change)
            except Malformed as error:
                self.quarantine(stored, str(error), batch)
                row = execs.unreadable(row)
            else:
                batch.blocks.append(made)
                row = execs.fold(row, change, len(made[10]))
        else:
            if change.problem:
                self.quarantine(stored, change.problem, batch)
            row = execs.fold(row, change)
        self._keep(key, row, batch)

    def _keep(self, key: execs.Key, row: ExecRow, batch: Batch) -> None:
        self._execs.pop(key, None)  # so that the order of the dict is that of use
        self._execs[key] = batch.execs[key] = row

    def _apply_session(self, stored: Stored, change: Change, batch: Batch) -> None:
        name = sessions.key(change)
        before = self._sessions.pop(name, None)
        row = self._sessions[name] = sessions.fold(before, change)
        if row is not None and row is not before:
            batch.sessions[(*name, row.incarnation)] = row
        if change.problem:
            self.quarantine(stored, change.problem, batch)
