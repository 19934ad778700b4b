"""Which rows `sandreel top` shows, in which order, and how they look."""

from __future__ import annotations

import time

import pytest

from sandreel_core.cli.cells import columns_of, cut, fitted, plain
from sandreel_core.cli.top.columns import BY_NAME, COLUMNS, cells, duration, layout, number, size
from sandreel_core.cli.top.order import Filter, Order, arrange
from sandreel_core.cli.top.row import Row
from sandreel_core.errors import Malformed


def session(name: str, state: str = "ready", *, org: str = "acme", rate: float = 0.0) -> Row:
    return Row(org=org, session=name, state=state, lines_per_s=rate)


def exec_(of: str, name: str, state: str = "running", *, rate: float = 0.0, last: str = "", ending: str = "") -> Row:
    return Row(org="acme", session=of, exec=name, state=state, lines_per_s=rate, last_line=last, ending=ending)


ROWS = [
    session("web", rate=5),
    exec_("web", "x2", rate=1, last="GET /index \x1b[31m500\x1b[0m"),
    exec_("web", "x1", "exited", ending="3"),
    session("build", rate=9),
    exec_("build", "y1", rate=9, last="compiling"),
    session("old", "stopped", org="other"),
]


def names(order: Order, text: str = "") -> list[str]:
    return [row.name for row in arrange(ROWS, order, Filter.parse(text))]


def test_by_state_what_lives_first_and_names_among_equals() -> None:
    assert names(Order()) == ["build", "y1", "web", "x2", "x1", "old"]
    assert names(Order(reverse=True)) == ["old", "build", "y1", "web", "x1", "x2"]


def test_by_rate_in_the_tree_and_flat() -> None:
    assert names(Order(by="rate")) == ["build", "y1", "web", "x2", "x1", "old"]
    assert names(Order(by="rate", tree=False)) == ["y1", "x2", "x1"]
    assert names(Order(by="rate", tree=False, reverse=True)) == ["x1", "x2", "y1"]


@pytest.mark.parametrize("column", [column.name for column in COLUMNS])
def test_every_column_sorts_rows_of_both_kinds(column: str) -> None:
    assert sorted(names(Order(by=column))) == sorted(row.name for row in ROWS)
    assert len(names(Order(by=column, reverse=True))) == len(ROWS)


def test_only_what_lives() -> None:
    assert names(Order(live=True)) == ["build", "y1", "web", "x2"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("COMPIL", ["build", "y1"]),
        ("org:other", ["old"]),
        ("state:exited", ["web", "x1"]),
        ("state:/^exited 3$/", ["web", "x1"]),
        ("name:web x1", ["web", "x1"]),
        ("/index 500$/", ["web", "x2"]),
        ("/compil|index/ name:x", ["web", "x2"]),
        ("nothing", []),
    ],
)
def test_a_filter_keeps_the_session_of_what_it_takes(text: str, shown: list[str]) -> None:
    assert names(Order(), text) == shown


@pytest.mark.parametrize("text", ["/(/", "/" + "a{500}" * 8 + "/", "x" * 201])
def test_filters_that_are_none(text: str) -> None:
    with pytest.raises(Malformed):
        Filter.parse(text)


def test_an_expression_that_would_run_for_ever_elsewhere_does_not_here() -> None:
    rows = [exec_("web", f"x{number}", last="a" * 239 + "!") for number in range(1000)]
    began_s = time.process_time()
    assert arrange(rows, Order(tree=False), Filter.parse("/(a+)+$/")) == []
    assert time.process_time() - began_s < 5


def test_an_unknown_column() -> None:
    with pytest.raises(Malformed, match="--sort 'colour' is none of name, org"):
        Order(by="colour")


@pytest.mark.parametrize("width", [40, 60, 79, 80, 100, 120, 200])
def test_a_row_is_exactly_as_wide_as_the_terminal(width: int) -> None:
    wide = [*ROWS, exec_("web", "x-" + "9" * 60, "exited", ending="SIGKILL", last="漢字" * 100)]
    columns = layout(wide, width)
    assert {"name", "state", "rate", "last"} <= {column.name for column, _ in columns}
    for row in wide:
        assert columns_of(" ".join(cells(row, columns, tree=True))) == max(width, 36)


def test_on_eighty_columns_the_spool_and_the_heartbeat_are_there() -> None:
    assert {"spool", "beat", "age", "execs"} <= {column.name for column, _ in layout(ROWS[:5], 80)}


def test_several_organisations_are_named() -> None:
    assert "org" in {column.name for column, _ in layout(ROWS, 140)}
    assert "org" not in {column.name for column, _ in layout(ROWS[:5], 140)}


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]0;title\x1b\\text", "text"),
        ("10 %\r100 %\r", "100 %"),
        ("a\tb", "a    b"),
        ("bell\x07 \x9b31m", "bell\\x07 \\x9b31m"),
        ("\u202egnol", "\\u202egnol"),
        ("half an escape \x1b", "half an escape \\x1b"),
    ],
)
def test_what_a_job_printed_does_not_steer_the_terminal(raw: str, shown: str) -> None:
    assert plain(raw) == shown
    assert plain(raw).isprintable()


def test_cells_are_cut_by_columns_not_characters() -> None:
    assert cut("漢字漢字", 5) == "漢字…"
    assert fitted("漢字", 6) == "漢字  "
    assert fitted("7", 3, right=True) == "  7"
    assert cut("abc", 0) == ""


def test_durations_numbers_and_sizes_are_short() -> None:
    assert [duration(s) for s in (None, -1, 0.44, 9.99, 59.9, 299.9, 3599, 7260, 86_400 * 12)] == (
        ["", "0.0s", "0.4s", "10.0s", "59s", "4m59", "59m", "2h01", "12d"]
    )
    assert [number(n) for n in (None, 0, 9.54, 99_999, 100_000, 12_345_678)] == (
        ["", "0", "9.5", "99999", "100.0k", "12.3M"]
    )
    assert [size(n) for n in (None, 0, 1023, 2048, 5 << 20, 3 << 30)] == ["", "0B", "1023B", "2K", "5M", "3G"]
    assert BY_NAME["name"].priority == 0
