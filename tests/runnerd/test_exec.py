"""The life of one exec: transcripts of what comes in and what is to be done."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandreel_runnerd.exec import Act, Close, Life, Probe, Send, Timers


def alive(**timers: float) -> Life:
    life = Life(Timers(**timers))
    assert life.begin(0) == []
    return life


def test_an_exit_with_both_pipes_at_their_end_closes_at_once() -> None:
    life = alive()
    assert life.pipes_ended(1) == []
    assert life.leader_left(2) == [Close()]
    assert (life.reason, life.closed, life.next_at()) == ("exited", True, None)


def test_a_pipe_that_a_grandchild_holds_is_waited_for_for_2_s() -> None:
    life = alive()
    assert life.leader_left(1) == []
    assert life.next_at() == 3
    assert life.tick(2.9) == []
    assert life.tick(3) == [Close()]
    assert life.tick(9) == life.pipes_ended(9) == []


def test_cancel_is_sigterm_then_sigkill_5_s_later() -> None:
    life = alive()
    assert life.cancel(10) == [Send("SIGTERM", "cancelled")]
    assert life.cancel(11) == []
    assert life.next_at() == 15
    assert life.tick(14.9) == []
    assert life.tick(15) == [Send("SIGKILL", "cancelled")]
    assert life.leader_left(15.1) == [Probe()]
    assert life.group_gone(15.2) == []
    assert life.pipes_ended(15.3) == [Close()]
    assert life.reason == "cancelled"


def test_sigkill_is_cancelled_when_the_group_is_gone() -> None:
    life = alive()
    life.cancel(0)
    life.pipes_ended(1)
    assert life.leader_left(1) == [Probe()]
    assert life.group_gone(1.1) == [Close()]
    assert life.tick(100) == []


def test_a_group_that_outlives_its_leader_still_gets_its_sigkill() -> None:
    life = alive(timeout_s=1)
    assert life.tick(1) == [Send("SIGTERM", "deadline")]
    assert life.leader_left(1.5) == [Probe()]
    acts: list[Act] = []
    while not life.closed:
        at = life.next_at()
        assert at is not None
        acts += life.tick(at)
    assert [act for act in acts if act != Probe()] == [Send("SIGKILL", "deadline"), Close()]


def test_a_cancel_wins_over_a_timer_but_nothing_else_does() -> None:
    life = alive(timeout_s=1, no_output_timeout_s=1.5)
    life.tick(1)
    assert (life.stop(2), life.tick(3), life.reason) == ([], [], "deadline")
    assert (life.cancel(3), life.reason) == ([], "cancelled")
    assert (life.stop(4), life.reason) == ([], "cancelled")


def test_what_comes_after_the_leader_is_gone_changes_nothing() -> None:
    life = alive(timeout_s=5)
    life.leader_left(1)
    assert (life.cancel(2), life.stop(2), life.reason) == ([], [], "exited")


def test_the_earliest_timer_gives_the_reason() -> None:
    life = alive(timeout_s=5, no_output_timeout_s=4)
    assert life.tick(10) == [Send("SIGTERM", "no_output")]


def test_no_output_counts_from_the_last_output_and_only_when_the_program_is_to_blame() -> None:
    life = alive(no_output_timeout_s=2)
    life.output(1)
    assert life.next_at() == 3
    assert life.tick(3, silent=False) == []
    assert life.next_at() == 5
    assert life.tick(5) == [Send("SIGTERM", "no_output")]


def test_the_orphan_timer_counts_only_while_attended() -> None:
    life = alive(orphan_timeout_s=10)
    assert (life.next_at(), life.tick(100)) == (None, [])
    life.attend(True, 100)
    life.attend(True, 106)
    # When it ceased is not known: what passed since it was last said is not counted.
    life.attend(False, 108)
    assert life.next_at() is None
    life.attend(True, 200)
    assert life.next_at() == 204
    life.keepalive(203)
    assert life.next_at() == 213
    assert life.tick(213) == [Send("SIGTERM", "orphaned")]


def test_a_cancel_before_the_beginning_takes_effect_with_it() -> None:
    life = Life(Timers())
    assert life.cancel(0) == []
    assert life.begin(1) == [Send("SIGTERM", "cancelled")]


inputs = st.lists(
    st.tuples(
        st.sampled_from(
            ("cancel", "stop", "output", "keepalive", "attend", "unattend", "leave", "pipes", "gone", "tick", "noise")
        ),
        st.floats(0, 4),
    ),
    max_size=60,
)


@given(inputs, st.floats(0.1, 20), st.floats(0.1, 20), st.floats(0.1, 20))
def test_every_life_closes_exactly_once_and_kills_at_most_once(
    steps: list[tuple[str, float]], timeout_s: float, no_output_s: float, orphan_s: float
) -> None:
    life = alive(timeout_s=timeout_s, no_output_timeout_s=no_output_s, orphan_timeout_s=orphan_s)
    acts: list[Act] = []
    now = 0.0
    for what, pause in steps:
        now += pause
        match what:
            case "cancel":
                acts += life.cancel(now)
            case "stop":
                acts += life.stop(now)
            case "output":
                life.output(now)
            case "keepalive":
                life.keepalive(now)
            case "attend" | "unattend":
                life.attend(what == "attend", now)
            case "leave":
                acts += life.leader_left(now)
            case "pipes":
                acts += life.pipes_ended(now)
            case "gone":
                acts += life.group_gone(now) if not life.leader_lives else []
            case _:
                acts += life.tick(now, silent=what == "tick")
    acts += life.leader_left(now)
    for _ in range(200):
        at = life.next_at()
        if at is None:
            break
        now = max(now, at)
        acts += life.tick(now)
    assert life.closed
    assert acts[-1] == Close()
    assert acts.count(Close()) == 1
    sent = [act.signal for act in acts if isinstance(act, Send)]
    assert sent in ([], ["SIGTERM"], ["SIGTERM", "SIGKILL"])
    assert (life.reason == "exited") == (sent == [])
