"""What one transaction writes, and the rows that the folds go on from. No IO: `writer` loads and stores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from msgspec import Struct

from sandreel_core.bus.port import Stored
from sandreel_core.errors import Malformed
from sandreel_projections.change import Change, instant, text
from sandreel_projections.source import Append, Fold, Key, Record, Source
from sandreel_projections.tables import key_of

# Bytes of a quarantined body that are kept: the server's default payload, so nearly always all of it.
MAX_BODY_BYTES = 1 << 20
_MAX_REASON = 4096

# In the order of the columns of `reel.quarantine`.
Quarantined = tuple[str, str, int, int | None, str, str, str, bytes, datetime]
# Rows by key, for each table by its name; None for what has no row.
Rows = Mapping[str, Mapping[Key, Struct | None]]


@dataclass(slots=True)
class Batch:
    """Everything between two cursors of one source. `sequence` and `at` are those of its last event.

    rows         by table and primary key, to be put in the place of what is stored
    records      by table, to be appended
    quarantined  by sequence
    """

    before: int
    sequence: int = 0
    at: datetime | None = None
    rows: defaultdict[str, dict[Key, Struct]] = field(default_factory=lambda: defaultdict(dict))
    records: defaultdict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    quarantined: dict[int, Quarantined] = field(default_factory=dict)
    events: int = 0


class _Known:
    """One fold, and its newest rows that were used lately."""

    __slots__ = ("fold", "more", "name", "records", "rows", "width")

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        self.name = fold.table.name
        self.width = fold.key_width
        # Columns of the primary key behind those of the fold's key.
        self.more = key_of(fold.table)[fold.key_width :]
        self.records = "" if fold.records is None else fold.records.name
        self.rows: dict[Key, Any] = {}

    def keep(self, key: Key, row: Struct, batch: Batch) -> None:
        self.rows.pop(key, None)  # so that the order of the dict is that of use
        self.rows[key] = row
        identity = (*key, *[getattr(row, name) for name in self.more]) if self.more else key
        batch.rows[self.name][identity] = row


class Views:
    """The newest rows of what was written lately: of each table as many as its fold says, or `limit` if that is less, beside
    those in use."""

    def __init__(self, source: Source, epoch: str, *, limit: int | None = None) -> None:
        self.source = source
        self.epoch = epoch
        self._limit = limit
        self._known = [_Known(fold) for fold in source.folds]
        # By topic, those that are asked about a change: found once for each.
        self._routes: dict[str, tuple[list[_Known], list[Append]]] = {}

    def unknown(self, changes: Iterable[Change]) -> dict[str, set[Key]]:
        """By table, the keys whose rows must be loaded before these changes can be applied."""
        wanted: defaultdict[str, set[Key]] = defaultdict(set)
        by_topic: defaultdict[str, list[Change]] = defaultdict(list)
        for each in changes:
            by_topic[self.source.topic(each)].append(each)
        for topic, some in by_topic.items():
            for known in self._asked(topic)[0]:
                key_of_change, rows = known.fold.key, known.rows
                keys = {key for each in some if (key := key_of_change(each)) is not None and key not in rows}
                if keys:
                    wanted[known.name] |= keys
        return wanted

    def learn(self, found: Rows) -> None:
        """Rows as they are stored; None for what has none."""
        for known in self._known:
            known.rows.update(found.get(known.name, {}))

    def reset(self) -> None:
        """Know nothing any more: every row is loaded again."""
        for known in self._known:
            known.rows.clear()

    def forget(self, unwritten: Batch | None) -> None:
        """Drop the rows that were not used for longest, but none of a batch that is still being written."""
        for known in self._known:
            remembered = known.fold.remembered
            surplus = len(known.rows) - (remembered if self._limit is None else min(self._limit, remembered))
            if surplus <= 0:
                continue
            written = unwritten.rows.get(known.name, {}) if unwritten else {}
            kept = {identity[: known.width] for identity in written}
            for key in list(islice(known.rows, surplus)):
                if key not in kept:
                    del known.rows[key]

    def decode(self, stored: Stored, batch: Batch) -> Change | None:
        """The change that a message is; None, and a row of quarantine, for what is none."""
        try:
            decoded: Change = self.source.decode(stored, self.epoch)
        except Malformed as error:
            self.quarantine(stored, str(error), batch)
            return None
        return decoded

    def apply(self, stored: Stored, change: Change, batch: Batch) -> None:
        """Fold one change into the rows, and note in `batch` what has to be written."""
        folds, appends = self._asked(self.source.topic(change))
        for known in folds:
            key = known.fold.key(change)
            if key is not None:
                self._step(known, key, stored, change, batch)
        for append in appends:
            try:
                record = append.record(change)
            except Exception as error:  # noqa: BLE001 - one event must not stop all the others
                self.quarantine(stored, _bug(append.table.name, error), batch)
            else:
                if record is not None:
                    batch.records[append.table.name].append(record)
        if problem := self.source.problem(change):
            self.quarantine(stored, problem, batch)

    def poison(self, stored: Stored, change: Change | None, reason: str, batch: Batch) -> None:
        """Step over an event whose rows the database refused: its place counts, its content is quarantined."""
        self.quarantine(stored, reason, batch)
        if change is None:
            return
        for known in self._asked(self.source.topic(change))[0]:
            key = known.fold.key(change)
            if key is not None:
                self._skip(known, key, change, batch)

    def quarantine(self, stored: Stored, reason: str, batch: Batch) -> None:
        """Note an event that something could not digest; of several reasons each is kept."""
        before = batch.quarantined.get(stored.sequence)
        if before is not None:
            reason = f"{before[6]}; {reason}"
        batch.quarantined[stored.sequence] = (
            self.source.stream,
            self.epoch,
            stored.sequence,
            self.source.partition,
            self.source.cursor(self.epoch, stored.sequence),
            text(stored.subject) or "",
            text(reason[:_MAX_REASON]) or "",
            stored.body[:MAX_BODY_BYTES],
            instant(stored.time_ns),
        )

    def _asked(self, topic: str) -> tuple[list[_Known], list[Append]]:
        found = self._routes.get(topic)
        if found is None:
            folds = [known for known in self._known if known.fold.topic in (None, topic)]
            found = folds, [append for append in self.source.appends if append.topic in (None, topic)]
            self._routes[topic] = found
        return found

    def _step(self, known: _Known, key: Key, stored: Stored, change: Change, batch: Batch) -> None:
        before = known.rows.get(key)
        try:
            row, record, problem = known.fold.step(before, change)
        except Exception as error:  # noqa: BLE001 - one event must not stop all the others
            self.quarantine(stored, _bug(known.name, error), batch)
            self._skip(known, key, change, batch)
            return
        if row is not None and row is not before:
            known.keep(key, row, batch)
        if record is not None:
            batch.records[known.records].append(record)
        if problem:
            self.quarantine(stored, problem, batch)

    def _skip(self, known: _Known, key: Key, change: Change, batch: Batch) -> None:
        before = known.rows.get(key)
        try:
            row = known.fold.skip(before, change)
        except Exception:  # noqa: BLE001 - the event is in quarantine already, with its reason
            return
        if row is not None and row is not before:
            known.keep(key, row, batch)


def _bug(table: str, error: Exception) -> str:
    return f"{table}: {type(error).__name__}: {' '.join(str(error).split())}"
