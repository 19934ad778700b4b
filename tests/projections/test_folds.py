"""The folds, without any server: total, and blind to whatever go-back-N leaves in the log."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sandreel_core.bus.port import Stored
from sandreel_core.contract import session as s
from sandreel_core.contract.exec import Stream
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_projections.batch import Batch, Views
from sandreel_projections.change import bigint, change, instant, integer, text
from sandreel_projections.registry import reel_source
from tests.support import samples
from tests.support.script import AT, Message, end, job, life, message

SUBJECTS = SessionSubjects("acme", "s1")
_chunk = st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(min_size=1, max_size=5))


def fold(messages: Sequence[Message], *, cuts: Sequence[int] = ()) -> tuple[list[Any], list[Any], list[Any]]:
    """(session rows, exec rows, blocks without their place) of a log that is read in batches with these ends."""
    views = Views(reel_source(0), "e1")
    sessions: dict[Any, Any] = {}
    execs: dict[Any, Any] = {}
    blocks: list[Any] = []
    edges = sorted({0, *(cut for cut in cuts if cut < len(messages)), len(messages)})
    for first, last in pairwise(edges):
        batch = Batch(before=first, sequence=last)
        for sequence, (subject, body) in enumerate(messages[first:last], first + 1):
            stored = Stored(subject, sequence, body, 10**18)
            made = views.decode(stored, batch)
            if made is not None:
                views.apply(stored, made, batch)
        sessions |= batch.rows["sessions"]
        execs |= batch.rows["execs"]
        blocks += [block[:12] for block in batch.records["exec_blocks"]]
    return list(sessions.values()), list(execs.values()), blocks


def without_place(rows: list[Any]) -> list[dict[str, Any]]:
    fields = [{name: getattr(row, name) for name in row.__struct_fields__} for row in rows]
    return [{name: value for name, value in row.items() if not name.endswith("_cursor")} for row in fields]


@settings(max_examples=200, deadline=None)
@given(chunks=st.lists(_chunk, max_size=8), seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 60), max_size=6))
def test_resent_and_overtaken_pieces_change_nothing(
    chunks: list[tuple[Stream, bytes]], seed: int, cuts: list[int]
) -> None:
    """What go-back-N stores: from any event on everything again, and of the window any part behind a hole."""
    clean = job(SUBJECTS, "e1", chunks)
    chance = random.Random(seed)
    dirty: list[Message] = clean[:1]
    acknowledged = 1
    while acknowledged < len(clean) - 1:
        window = clean[acknowledged : min(acknowledged + 4, len(clean) - 1)]
        stored = [each for each in window if chance.random() < 0.6]
        dirty += stored
        if stored and stored[0] is window[0]:
            acknowledged += next((i for i, each in enumerate(window) if each not in stored), len(window))
            acknowledged = chance.randint(max(1, acknowledged - 2), acknowledged)
    dirty += [clean[-1]] * chance.randint(1, 2)
    (_, [expected], blocks), (_, [row], seen) = fold(clean), fold(dirty, cuts=cuts)
    assert without_place([row]) == without_place([expected])
    assert [block[:12] for block in seen] == [block[:12] for block in blocks]


@settings(max_examples=100, deadline=None)
@given(order=st.permutations(range(len(samples.EVENTS))), cuts=st.lists(st.integers(1, 60), max_size=4))
def test_any_event_in_any_order_is_taken(order: list[int], cuts: list[int]) -> None:
    messages = []
    for n, i in enumerate(order, 1):
        event = samples.EVENTS[i]
        key = samples.KEYS.get(event.aggregate, "")
        messages.append(message(SUBJECTS, event, key=key, **({"n": n} if event.aggregate == "exec" else {})))
    fold(messages, cuts=cuts)


@given(cut=st.integers(1, 8))
def test_batches_may_end_anywhere(cut: int) -> None:
    log = life(SUBJECTS) + job(SUBJECTS, "e1", [("stdout", b"a\nb")]) + end(SUBJECTS)
    whole_sessions, whole_execs, whole_blocks = fold(log)
    sessions, execs, blocks = fold(log, cuts=[cut])
    assert (sessions, execs, blocks) == (whole_sessions, whole_execs, whole_blocks)


def test_a_life_begins_only_after_the_one_before_has_ended() -> None:
    sessions, _, _ = fold(life(SUBJECTS) + life(SUBJECTS, 2) + end(SUBJECTS) + life(SUBJECTS, 3))
    assert [(row.incarnation, row.phase) for row in sessions] == [(1, "destroyed"), (3, "ready")]


def test_an_intent_that_is_said_again_is_no_stage_and_says_what_it_waits_for() -> None:
    intent = s.Stopping(reason="idle", until=AT)
    stopping = [message(SUBJECTS, intent), message(SUBJECTS, replace(intent, waits_for="the engine is away"))]
    ((before,), _, _), ((row,), _, _) = fold([*life(SUBJECTS), stopping[0]]), fold([*life(SUBJECTS), *stopping])
    assert (row.phase, row.stop_reason, row.degraded_reason) == ("stopping", "idle", "the engine is away")
    assert (row.stage, row.stage_cursor) == (before.stage, before.stage_cursor)
    stopped = message(SUBJECTS, s.Stopped(reason="idle", commands_until=9))
    (row,), _, _ = fold([*life(SUBJECTS), *stopping, stopped])
    assert (row.phase, row.degraded_reason) == ("stopped", None)


def test_what_postgres_cannot_keep_is_made_fit() -> None:
    assert text("a\0b") == "a\ufffdb"
    assert text(None) is None
    assert bigint(2**70) == 2**63 - 1
    assert integer(-(2**40)) == -(2**31) + 1
    assert instant(1_764_000_000_123_456_789).isoformat() == "2025-11-24T16:00:00.123456+00:00"


def test_an_event_knows_its_place() -> None:
    subject, body = life(SUBJECTS)[0]
    made = change(Stored(subject, 7, body, 10**18), "e1")
    assert (made.cursor, made.where.aggregate, made.problem) == ("e1:0:7", "session", "")


def test_rows_that_are_being_written_are_not_forgotten() -> None:
    views = Views(reel_source(0), "e1", limit=1)
    batch = Batch(before=0)
    changes = []
    for sequence in range(1, 4):
        subject, body = job(SUBJECTS, f"e{sequence}", [])[0]
        stored = Stored(subject, sequence, body, 10**18)
        made = change(stored, "e1")
        changes.append(made)
        views.apply(stored, made, batch)
    views.forget(batch)
    assert views.unknown(changes) == {}
    views.forget(None)
    assert views.unknown(changes)["execs"] == {("acme", "s1", "e1"), ("acme", "s1", "e2")}
