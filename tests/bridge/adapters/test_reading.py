"""What every adapter's reader holds to, over every recording of a real program and over what nobody has printed yet."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandreel_bridge.adapters.json_lines import MAX_LINE_BYTES
from sandreel_bridge.adapters.shortened import MAX_EVENT_BYTES
from sandreel_bridge.adapters.table import ADAPTERS
from sandreel_core.agent import AgentItem, Typed
from sandreel_core.contract import agent as a
from sandreel_core.contract import turn as t
from tests.support.recordings import RECORDINGS, Recording

recordings = pytest.mark.parametrize("recording", RECORDINGS, ids="/".join)
agents = pytest.mark.parametrize("agent", sorted(ADAPTERS))
_CUTS = st.lists(st.integers(min_value=0, max_value=1 << 20), max_size=12)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def events(items: list[AgentItem]) -> list[a.AgentEvent]:
    return [item for item in items if not isinstance(item, Typed)]


@recordings
@settings(max_examples=8, deadline=None)
@given(cuts=_CUTS)
def test_any_chunking_gives_the_same_events(recording: Recording, cuts: list[int]) -> None:
    assert recording.items(cuts) == recording.items()


@recordings
def test_byte_by_byte_gives_the_same_events(recording: Recording) -> None:
    assert recording.items(range(len(recording.stdout))) == recording.items()


@recordings
@settings(max_examples=5, deadline=None)
@given(cuts=_CUTS)
def test_another_reader_goes_on_from_its_state(recording: Recording, cuts: list[int]) -> None:
    """As a bridge does that takes over from a checkpoint, which is JSON in an event."""
    items: list[AgentItem] = []
    reader = recording.reader()
    for piece in recording.pieces(cuts):
        state = msgspec.json.decode(
            msgspec.json.encode(t.Checkpoint(exec_n=1, parser=reader.state())), type=t.Checkpoint
        )
        reader = ADAPTERS[recording.agent].reader()
        reader.resume(state.parser)
        items += reader.feed(piece, 1)
    assert items + reader.end(1, recording.exit_code) == recording.items()


@recordings
def test_every_event_is_one_of_the_contract(recording: Recording) -> None:
    for event in events(recording.items()):
        assert msgspec.json.decode(msgspec.json.encode(event), type=type(event)) == event


@recordings
def test_every_run_ends_in_a_result_and_every_tool_is_told_before_its_output(recording: Recording) -> None:
    found = events(recording.items())
    assert isinstance(found[-1], a.AgentResult | a.AgentRaw)  # raw: Claude's life cycle of a message, behind its result
    assert any(isinstance(event, a.AgentResult) for event in found)
    begun: set[str] = set()
    for event in found:
        if isinstance(event, a.ToolUse):
            assert event.tool_use_id
            assert event.tool_use_id not in begun
            begun.add(event.tool_use_id)
        if isinstance(event, a.ToolResult):
            assert event.tool_use_id in begun
        if event.parent is not None:
            assert event.parent in begun


@recordings
def test_typed_text_comes_again_whole(recording: Recording) -> None:
    typed, said = "", ""
    for item in recording.items():
        if isinstance(item, Typed) and item.parent is None:
            typed += item.text
        elif isinstance(item, a.AgentText) and item.parent is None:
            said += item.text
    assert not typed or typed in said or recording.name.startswith(("sigterm", "sigkill"))


@agents
@settings(max_examples=60, deadline=None)
@given(noise=st.lists(st.binary(max_size=40), max_size=6))
def test_no_bytes_make_it_raise(agent: str, noise: list[bytes]) -> None:
    reader = ADAPTERS[agent].reader()
    for piece in noise:
        reader.feed(piece, 1)
    assert isinstance(reader.end(1, 0)[-1], a.AgentResult)


@agents
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_shape_makes_it_raise(agent: str, data: st.DataObject) -> None:
    """Lines of the real programs in which something was put that does not belong there."""
    recording = data.draw(st.sampled_from([each for each in RECORDINGS if each.agent == agent and each.stdout]))
    reader = ADAPTERS[agent].reader()
    for line in recording.stdout.splitlines():
        said = msgspec.json.decode(line)
        place: Any = said
        while isinstance(place, dict) and place:
            name = data.draw(st.sampled_from(sorted(place)))
            if not isinstance(place[name], dict) or data.draw(st.booleans()):
                place[name] = data.draw(_JSON)
                break
            place = place[name]
        for event in events(reader.feed(msgspec.json.encode(said) + b"\n", 1)):
            assert msgspec.json.decode(msgspec.json.encode(event), type=type(event)) == event
    assert isinstance(events(reader.end(1, 0) or [a.AgentResult(source_n=1, status="error")])[-1], a.AgentResult)


@agents
def test_what_is_unknown_is_passed_on_and_what_is_malformed_is_counted(agent: str) -> None:
    reader = ADAPTERS[agent].reader()
    deep = b'{"type":"new","deep":' + b"[" * 150 + b"]" * 150 + b"}\n"
    found = reader.feed(b'{"type":"new","more":[1]}\n\n  \r\nplain text\n[1]\n"x"\n\xff\n{"type":1}\n' + deep, 7)
    assert found == [
        a.AgentRaw(source_n=7, payload={"type": "new", "more": [1]}),
        a.AgentRaw(source_n=7, payload={"type": 1}),
    ]
    assert reader.malformed_lines == 5


@agents
def test_a_line_without_end_is_not_held_and_is_said_to_be_left_out(agent: str) -> None:
    reader = ADAPTERS[agent].reader()
    tracemalloc.start()
    for _ in range(30):
        assert reader.feed(b"x" * (1 << 20), 1) == []
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    [left_out, unknown] = reader.feed(b'\n{"type":"new"}\n', 2)
    assert held < MAX_LINE_BYTES + (1 << 20)
    assert isinstance(left_out, a.AgentError)
    assert str(MAX_LINE_BYTES) in left_out.message
    assert unknown == a.AgentRaw(source_n=2, payload={"type": "new"})


def test_a_line_of_exactly_the_limit_is_read_however_it_comes() -> None:
    line = b'{"type":"new","x":"' + b"y" * (MAX_LINE_BYTES - 21) + b'"}'
    assert len(line) == MAX_LINE_BYTES
    for pieces in ([line + b"\n"], [line[:9], line[9:], b"\n"], [b"\n" + line + b"\n"]):
        reader = ADAPTERS["codex"].reader()
        [raw] = [item for piece in pieces for item in reader.feed(piece, 1)]
        assert isinstance(raw, a.AgentRaw)
    for pieces in ([line + b" \n"], [line, b" ", b"\n"], [b"\n" + line + b" \n"]):
        reader = ADAPTERS["codex"].reader()
        [left_out] = [item for piece in pieces for item in reader.feed(piece, 1)]
        assert isinstance(left_out, a.AgentError)


def test_an_event_that_no_message_could_hold_is_shortened_and_says_so() -> None:
    content = [{"type": "tool_result", "tool_use_id": "u", "content": "z" * 3_000_000}]
    line = msgspec.json.encode({"type": "user", "message": {"role": "user", "content": content}})
    [result] = ADAPTERS["claude-code"].reader().feed(line + b"\n", 1)
    assert isinstance(result, a.ToolResult)
    assert len(msgspec.json.encode(result)) <= MAX_EVENT_BYTES
    assert result.output.endswith("… [shortened: 3000000 characters]")

    line = msgspec.json.encode({"type": "new", "many": list(range(200_000))})
    [left_out] = ADAPTERS["claude-code"].reader().feed(line + b"\n", 1)
    assert isinstance(left_out, a.AgentError)
    assert "agent.raw of" in left_out.message
