"""The whole log, read and folded apart from the code under test, and the views held against it.

`told` folds the raw JSON by design §3 alone. `expected` is the views' own fold over the log from its beginning, so
that whatever kills and repeats have done to the rows shows in every column.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import msgspec

from sandreel_core import exec as machine
from sandreel_core.bus.port import Bus, Stored
from sandreel_core.contract.codec import decode_event
from sandreel_core.ordinals import Ordinals
from sandreel_projections.batch import Batch, Views
from sandreel_projections.execs import ExecRow
from sandreel_projections.registry import reel_source
from sandreel_projections.sessions import SessionRow

Rows = dict[str, list[tuple[Any, ...]]]
_TABLES = {"sessions": "org, session, incarnation", "execs": "org, session, exec", "exec_blocks": "sequence"}
# In the order of the fields: a migration adds its columns at the end of a table, a fold has its own order.
_COLUMNS = {
    table: ", ".join(f'"{name}"' for name in row.__struct_fields__)
    for table, row in {"sessions": SessionRow, "execs": ExecRow}.items()
}


@dataclass
class Told:
    """One exec as the log tells it."""

    subject: str
    last_n: int = 0
    phase: str = "none"
    exit_code: int | None = None
    boot_id: str | None = None
    source: str = ""
    ends: list[str] = field(default_factory=list)
    gaps: int = 0
    data: dict[str, bytearray] = field(default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()})
    # Bodies of its recorder's messages by (n, type): go-back-N sends the same again, never another one.
    bodies: dict[tuple[int, str], set[bytes]] = field(default_factory=dict)
    last_sequence: int = 0


async def whole_log(bus: Bus, stream: str = "REEL-0") -> list[Stored]:
    """Every message of the stream, in its order."""
    messages: list[Stored] = []
    async with aclosing(bus.follow(stream, [f"evt.{stream[5:]}.>"], live=False)) as items:
        async for item in items:
            messages += item if isinstance(item, list) else []
    return messages


def told(messages: Sequence[Stored]) -> dict[str, Told]:
    """Every exec of the log by its subject."""
    execs: dict[str, Told] = {}
    for stored in messages:
        if stored.subject.split(".")[4] != "exec":
            continue
        exec_ = execs.setdefault(stored.subject, Told(stored.subject))
        event = json.loads(stored.body)
        n, kind, data = event["n"], event["type"], event["data"]
        if event["source"] == (exec_.source or event["source"]):
            exec_.bodies.setdefault((n, kind), set()).add(stored.body)
        is_gap = kind == "exec.gap" and data["from_n"] == exec_.last_n + 1 and data["to_n"] == n - 1
        if exec_.ends or not (is_gap or (kind != "exec.gap" and n == exec_.last_n + 1)):
            continue
        exec_.last_n, exec_.last_sequence = n, stored.sequence
        exec_.gaps += is_gap
        if is_gap and data["from_n"] == 1:  # a restored log: what accepted it is gone
            exec_.phase, exec_.boot_id, exec_.source = "accepted", event["source"].rpartition("/")[2], event["source"]
        if kind == "exec.accepted":
            exec_.phase, exec_.boot_id, exec_.source = "accepted", data["boot_id"], event["source"]
        elif kind == "exec.started":
            exec_.phase = "running"
        elif kind == "exec.output":
            raw = data.get("base64")
            exec_.data[data["stream"]] += base64.b64decode(raw) if raw is not None else data["text"].encode()
        elif kind in ("exec.exited", "exec.lost"):
            exec_.phase = kind.removeprefix("exec.")
            exec_.exit_code = data.get("exit_code")
            exec_.ends.append(kind)
    return execs


def check_log(messages: Sequence[Stored]) -> dict[str, Told]:
    """What must hold of any log, of whatever was killed while it was written; returns `told`."""
    execs = told(messages)
    by_subject: dict[str, list[Stored]] = {}
    for stored in messages:
        by_subject.setdefault(stored.subject, []).append(stored)
    for exec_ in execs.values():
        assert len(exec_.ends) <= 1, f"{exec_.subject} has ended {len(exec_.ends)} times"
        exited = {n for n, kind in exec_.bodies if kind == "exec.exited"}
        assert len(exited) <= 1, f"{exec_.subject} has different ends at {exited}"
        if not exec_.gaps:
            changed = [place for place, bodies in exec_.bodies.items() if len(bodies) > 1]
            assert not changed, f"{exec_.subject} was sent again changed at {changed}"
        folded, place = machine.Exec(), Ordinals()
        for stored in by_subject[exec_.subject]:
            event = decode_event(stored.subject, stored.body)
            if place.accept(event):
                folded = machine.evolve(folded, event)
        assert (folded.phase, place.last) == (exec_.phase, exec_.last_n), exec_.subject
        assert {name: folded.bytes.get(name, 0) for name in exec_.data} == {k: len(v) for k, v in exec_.data.items()}
    return execs


def expected(messages: Sequence[Stored], epoch: str) -> Rows:
    """The rows that the views must have after these messages."""
    views, batch = Views(reel_source(0), epoch, limit=1_000_000), Batch(0)
    for stored in messages:
        change = views.decode(stored, batch)
        if change is not None:
            views.learn({table: dict.fromkeys(keys) for table, keys in views.unknown([change]).items()})
            views.apply(stored, change, batch)
    return {
        "sessions": [msgspec.structs.astuple(row) for _, row in sorted(batch.rows["sessions"].items())],
        "execs": [msgspec.structs.astuple(row) for _, row in sorted(batch.rows["execs"].items())],
        "exec_blocks": [tuple(block) for block in batch.records["exec_blocks"]],
    }


async def stored_rows(dsn: str) -> Rows:
    """The rows that the views have."""
    connection = await asyncpg.connect(dsn, timeout=20)
    try:
        return {
            table: [
                tuple(row)
                for row in await connection.fetch(
                    f"SELECT {_COLUMNS.get(table, '*')} FROM reel.{table} ORDER BY {order}"
                )
            ]
            for table, order in _TABLES.items()
        }
    finally:
        await connection.close()


def check_views(messages: Sequence[Stored], epoch: str, rows: Rows) -> None:
    """The views are a fold of the whole log: no row less, none twice, none older."""
    should = expected(messages, epoch)
    for table in _TABLES:
        have, want = _keyed(table, rows[table]), _keyed(table, should[table])
        assert sorted(have) == sorted(want), f"reel.{table} has other rows than the log"
        different = [key for key in want if have[key] != want[key]]
        assert not different, (
            f"reel.{table} differs from the log at {different[:3]}: {have[different[0]]} {want[different[0]]}"
        )
        assert len(rows[table]) == len(want), f"reel.{table} has rows twice"
    blocks: dict[tuple[str, ...], bytearray] = {}
    for block in rows["exec_blocks"]:
        blocks.setdefault(block[:4], bytearray()).extend(block[10])
    for exec_ in told(messages).values():
        _, _, org, session, _, name = exec_.subject.split(".")
        for stream, data in exec_.data.items():
            assert bytes(blocks.get((org, session, name, stream), b"")) == bytes(data), exec_.subject


def _keyed(table: str, rows: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    return {(row[12] if table == "exec_blocks" else row[:3]): row for row in rows}
