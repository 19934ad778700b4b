"""Text as it is typed, among the events of a turn, whoever is ahead."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandreel_core.agent import AgentItem, Typed
from sandreel_core.client.partial import Partial
from sandreel_core.contract import agent as a


def text(number: int) -> a.AgentText:
    return a.AgentText(source_n=number, text=f"text {number}")


def test_a_piece_waits_for_what_stands_before_it() -> None:
    partial = Partial()
    assert partial.read([Typed("a"), text(1), Typed("b")]) == [Typed("a")]
    assert partial.came(text(1)) == [Typed("b")]


def test_a_piece_is_dropped_once_something_behind_it_has_come() -> None:
    partial = Partial()
    assert partial.came(text(1)) == []
    assert partial.read([Typed("a"), text(1), Typed("b")]) == [Typed("b")]


def test_what_only_one_side_has_stands_in_nobodys_way() -> None:
    partial = Partial()
    partial.came(text(9))  # the bridge's own
    assert partial.read([Typed("a"), text(1)]) == []
    assert partial.came(text(1)) == []
    assert partial.read([Typed("b"), text(2), Typed("c"), text(3), Typed("d")]) == [Typed("b")]
    assert partial.came(text(3)) == [Typed("d")]  # it left 2 out


def test_output_that_is_read_from_its_middle_is_silent_up_to_what_is_known() -> None:
    partial = Partial(text(2))
    assert partial.read([Typed("old"), text(1), Typed("older"), text(2), Typed("new")]) == [Typed("new")]


def test_what_is_held_has_a_bound() -> None:
    partial = Partial()
    for number in range(5000):
        partial.read([text(number), *[Typed(str(number))] * 3])
    assert partial.came(text(4999)) in ([Typed("4999")] * 3, [])
    assert partial.read([Typed("now")]) == [Typed("now")]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(["typed", "event", "only the output", "only the log"]), max_size=40),
    st.lists(st.booleans(), max_size=80),
)
def test_a_piece_stands_between_its_neighbours_in_any_interleaving(kinds: list[str], turns: list[bool]) -> None:
    """By the events that both sides have: all before the piece have come from the log, and none behind it."""
    output: list[AgentItem] = []
    log: list[a.AgentText] = []
    place: dict[str, int] = {}  # of a piece: how many events of both sides stand before it
    for number, kind in enumerate(kinds):
        if kind == "typed":
            place[str(number)] = sum(item in log for item in output if isinstance(item, a.AgentText))
            output.append(Typed(str(number)))
        if kind in ("event", "only the output"):
            output.append(text(number))
        if kind in ("event", "only the log"):
            log.append(text(number))
    both = [item for item in log if item in output]
    partial = Partial()
    reading, coming = iter(output), iter(log)
    came = 0
    for is_output in [*turns, *[True, False] * 40]:
        if is_output:
            shown = [piece for item in [next(reading, None)] if item is not None for piece in partial.read([item])]
        else:
            event = next(coming, None)
            shown = partial.came(event) if event is not None else []
            came += event in both
        assert all(place[piece.text] == came for piece in shown)
