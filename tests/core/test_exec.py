"""Execs as readers see them: exactly the contiguous prefix, exactly one end."""

from __future__ import annotations

import base64

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sandreel_core import exec as m
from sandreel_core.contract import exec as x
from sandreel_core.contract.message import Envelope, Event
from sandreel_core.ordinals import Ordinals
from tests.support import samples

EXEC_EVENTS = [p for p in samples.EVENTS if isinstance(p, x.ExecEvent)]


def at(n: int, payload: Event) -> Envelope:
    return msgspec.structs.replace(samples.event(payload), n=n)


def sent(count: int) -> list[Envelope]:
    exited = x.Exited(exit_code=0, reason="exited", duration_ms=1)
    return [at(n, x.Accepted(boot_id="b") if n == 1 else exited if n == count else x.Throttled(bytes_per_s=n))
            for n in range(1, count + 1)]  # fmt: skip


@given(st.integers(2, 12), st.lists(st.booleans(), max_size=80))
def test_readers_see_the_exact_prefix_whatever_is_repeated_or_lost(count: int, losses: list[bool]) -> None:
    """Go-back-N: runs from the first unacknowledged n, again and again, with pieces missing.

    Only a copy that is stored behind its predecessor releases an event: one that slipped in before the
    hole in front of it was filled is no use to a reader, and must be sent again.
    """
    events = sent(count)
    log: list[Envelope] = []
    fate = iter(losses)
    first = 0
    while first < count:
        kept = [not next(fate, False) for _ in events[first:]]
        log += [e for e, stays in zip(events[first:], kept, strict=True) if stays]
        first += [*kept, False].index(False)
    ordinals = Ordinals()
    assert [e for e in log if ordinals.accept(e)] == events
    assert ordinals.ended


def test_nothing_follows_the_end() -> None:
    ordinals = Ordinals(last=4)
    assert ordinals.accept(at(5, x.Lost(last_n=4, cause="oom")))
    assert not ordinals.accept(at(6, x.Throttled(bytes_per_s=1)))
    assert not ordinals.accept(at(5, x.Exited(exit_code=0, reason="exited", duration_ms=1)))


def test_a_gap_explains_exactly_its_hole() -> None:
    gap = x.Gap(from_n=3, to_n=5, why="too large")
    for last, n, taken in ((2, 6, True), (1, 6, False), (3, 6, False), (2, 7, False), (6, 6, False)):
        ordinals = Ordinals(last)
        assert ordinals.accept(at(n, gap)) is taken
        assert ordinals.last == (n if taken else last)


def test_pieces_behind_a_hole_wait_for_their_repetition() -> None:
    ordinals = Ordinals(last=1)
    assert [ordinals.accept(at(n, x.Throttled(bytes_per_s=1))) for n in (3, 2, 2, 3)] == [False, True, False, True]


def test_a_life() -> None:
    state = m.Exec()
    started = next(p for p in EXEC_EVENTS if isinstance(p, x.Started))
    raw = base64.b64encode(b"\xff\n").decode()
    for n, payload in enumerate(
        [
            x.Accepted(boot_id="1-1"),
            started,
            x.Output(stream="stdout", line=1, count=1, text="ü\n", eol=True),
            x.Output(stream="stdout", line=2, count=1, base64=raw, eol=True),
            x.Exited(exit_code=3, reason="exited", duration_ms=5),
            x.Lost(last_n=5, cause="oom"),
        ],
        1,
    ):
        state = m.evolve(state, at(n, payload))
    assert (state.phase, state.lines, state.bytes) == ("exited", {"stdout": 2}, {"stdout": 5})
    assert state.exited is not None
    assert state.exited.exit_code == 3
    assert state.lost is None


@given(st.lists(st.sampled_from(EXEC_EVENTS), max_size=20))
def test_the_fold_is_total(events: list[Event]) -> None:
    state = m.Exec()
    for n, payload in enumerate(events, 1):
        state = m.evolve(state, at(n, payload))


@given(st.binary(max_size=50), st.text(max_size=50))
def test_the_size_of_a_block(data: bytes, text: str) -> None:
    encoded = base64.b64encode(data).decode()
    assert m.size_bytes(x.Output(stream="stdout", line=1, count=0, base64=encoded)) == len(data)
    assert m.size_bytes(x.Output(stream="stdout", line=1, count=0, text=text)) == len(text.encode())
