"""What docs/security.md claims is shown by tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HOUSE = Path(__file__).parents[2]
PAGE = HOUSE / "docs" / "security.md"


def test_every_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/.]+\.py)::(\w+)`", PAGE.read_text())
    assert len(named) > 30
    missing = [f"{path}::{name}" for path, name in named if name not in functions(HOUSE / path)]
    assert missing == []


def test_every_row_of_its_tables_names_one_or_the_table_of_rights() -> None:
    """Of attacks, that is: not of what there is to steal."""
    attacks = PAGE.read_text().partition("## A malicious agent")[2].partition("## A stolen database")[0]
    rows = [
        line
        for line in attacks.splitlines()
        if line.startswith("| ") and not line.startswith(("| it ", "| they ", "| role "))
    ]
    assert len(rows) > 20
    assert [row for row in rows if "`tests/" not in row and "`docs/permissions.md`" not in row] == []


def functions(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
