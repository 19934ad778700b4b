"""Another agent is one file and one row: what reads, shows and names agents knows it then."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandreel_bridge.adapters.adapter import Gateway, RunSpec
from sandreel_bridge.adapters.table import ADAPTERS, adapter
from sandreel_core.agent import AgentItem, AgentReader, Typed
from sandreel_core.cli.agents import agents
from sandreel_core.contract import agent as a
from sandreel_core.contract.exec import SecretRef
from sandreel_core.errors import Malformed
from tests.support import fifth

GATEWAY = Gateway(base_url="http://gateway:8080", key=SecretRef(role="bridge", lease="lease-1"))


@pytest.fixture(autouse=True)
def _row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, fifth.NAME, fifth.ADAPTER)


@cache
def recording() -> bytes:
    """What its program prints."""
    program = [sys.executable, "-I", "-c", fifth.PROGRAM]
    done = subprocess.run(program, input=b"sh echo ran; exit 3", capture_output=True, check=True, timeout=30)
    return done.stdout


def items(reader: AgentReader, pieces: list[bytes]) -> list[AgentItem]:
    return [item for piece in pieces for item in reader.feed(piece, 1)] + reader.end(1, 0)


def test_before_its_row_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ADAPTERS, fifth.NAME)
    with pytest.raises(Malformed, match="there is no agent 'fifth'"):
        adapter(fifth.NAME)


def test_its_program_is_started() -> None:
    spec = RunSpec(prompt="look", gateway=GATEWAY, resume="c-1", system_prompt_append="Be brief.")
    launch = adapter(fifth.NAME).launch(spec)
    assert (launch.argv, launch.stdin) == (["fifth", "--resume", "c-1"], b"Be brief.\n\nlook")


def test_the_command_line_reads_its_output() -> None:
    found = items(agents()[fifth.NAME](), [recording()])
    assert [type(item) for item in found] == [
        *(a.RunStarted, a.ToolUse, a.ToolResult, Typed, Typed, a.AgentText, a.AgentRaw, a.AgentResult),
    ]
    assert found[2] == a.ToolResult(source_n=1, tool_use_id="t1", output="ran\n", is_error=True)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_chunking_and_any_state_give_the_same_events(data: st.DataObject) -> None:
    printed = recording()
    cuts = sorted({0, len(printed), *data.draw(st.lists(st.integers(0, len(printed)), max_size=8))})
    pieces = [printed[begin:end] for begin, end in pairwise(cuts)]
    whole = items(fifth.ADAPTER.reader(), [printed])
    assert items(fifth.ADAPTER.reader(), pieces) == whole
    found, reader = list[AgentItem](), fifth.ADAPTER.reader()
    for piece in pieces:
        state = msgspec.json.decode(msgspec.json.encode(reader.state()))
        reader = fifth.ADAPTER.reader()
        reader.resume(state)
        found += reader.feed(piece, 1)
    assert found + reader.end(1, 0) == whole
