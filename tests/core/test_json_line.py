"""JSON that cannot steer a terminal, and says the same."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandreel_core.json_line import harmless, harmless_bytes, json_line, json_text

CONTROLS = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
HOUSE = Path(__file__).parents[2]
CLI = "core/sandreel_core/cli"


def test_no_control_character_is_left() -> None:
    text = json_text({CONTROLS: [CONTROLS, "é ü Â\xa0 ½ 漢 🙂"]})

    assert not set(text) & set(CONTROLS)
    assert json.loads(text) == {CONTROLS: [CONTROLS, "é ü Â\xa0 ½ 漢 🙂"]}
    assert "\\u009b" in text
    assert "\\u007f" in text
    assert "é ü Â\xa0 ½ 漢 🙂" in text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_value_is_the_same_by_every_way(text: str) -> None:
    encoded = json_line([text])

    assert msgspec.json.decode(encoded) == [text]
    assert harmless_bytes(json.dumps([text], ensure_ascii=False).encode()) == harmless(
        json.dumps([text], ensure_ascii=False)
    ).encode("utf-8")
    assert not set(encoded.decode()) & set(CONTROLS)


@pytest.mark.parametrize("room", [CLI, "projections", "migrations"])
def test_no_command_prints_json_by_another_way(room: str) -> None:
    """Whoever prints what `json.dumps` or msgspec made has forgotten DEL and C1."""
    for file in (HOUSE / room).rglob("*.py"):
        if file.name == "completers.py":  # it asks for files, and prints nothing
            continue
        tree = ast.parse(file.read_text())
        # The command line has no other use for JSON; elsewhere what is printed is looked at.
        looked_at = [tree] if room == CLI else [node for node in ast.walk(tree) if _prints(node)]
        for node in looked_at:
            made = {ast.unparse(each.func) for each in ast.walk(node) if isinstance(each, ast.Call)}
            ways = made & {"json.dumps", "msgspec.json.encode", "msgspec.json.Encoder"}
            assert not ways or "harmless" in made, f"{file} prints {ways}"


def _prints(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "write_all")
