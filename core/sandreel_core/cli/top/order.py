"""Which rows are shown, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sandreel_core.cli.cells import plain
from sandreel_core.cli.expression import matcher
from sandreel_core.cli.top.columns import BY_NAME, state
from sandreel_core.cli.top.row import Row
from sandreel_core.errors import Malformed

MAX_FILTER = 200
Match = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Filter:
    """What to show. As a person types it, parts with spaces between, all of which must hold:

    word        in the name, organisation, state or last line; capitals do not matter
    /regex/     the same with an expression of RE2, whose time is bounded
    org:acme    state:running   name:web   the column has this in it
    """

    text: str = ""
    _parts: tuple[tuple[str, Match], ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Raises Malformed for what is no filter, Misconfigured for an expression where RE2 is not installed."""
        if len(text) > MAX_FILTER:
            raise Malformed(f"the filter has {len(text)} characters; the limit is {MAX_FILTER}")
        parts = []
        for word in _words(text):
            column, colon, rest = word.partition(":")
            if colon and column in ("org", "state", "name"):
                parts.append((column, _match(rest)))
            else:
                parts.append(("", _match(word)))
        return cls(" ".join(text.split()), tuple(parts))

    def takes(self, row: Row) -> bool:
        return all(match(text) for column, match in self._parts for text in (_text(row, column),))


def _words(text: str) -> list[str]:
    """Split at spaces, but not within `/…/`."""
    words: list[str] = []
    rest = text.strip()
    while rest:
        head, slash, tail = rest.partition("/")
        if slash and (not head or head.endswith(":")) and "/" in tail:
            regex, _, rest = tail.partition("/")
            words.append(f"{head}/{regex}/")
        else:
            word, _, rest = rest.partition(" ")
            words.append(word)
        rest = rest.strip()
    return words


def _match(word: str) -> Match:
    if len(word) > 2 and word.startswith("/") and word.endswith("/"):
        return _regex(word[1:-1])
    wanted = word.casefold()
    return lambda text: wanted in text.casefold()


def _regex(pattern: str) -> Match:
    matches = matcher(pattern, ignore_case=True, of="/regex/")
    return lambda text: matches(text.encode("utf-8", "replace"))


def _text(row: Row, column: str) -> str:
    if column == "org":
        return row.org
    if column == "state":
        return state(row)
    if column == "name":
        return f"{row.session} {row.exec}"
    return f"{row.session} {row.exec} {row.org} {state(row)} {plain(row.last_line)}"


@dataclass(frozen=True, slots=True)
class Order:
    """by      name of a column
    reverse the other way round than that column is wanted first (`Column.descending`)
    tree    execs under their sessions; else execs alone
    live    without what has ended
    """

    by: str = "state"
    reverse: bool = False
    tree: bool = True
    live: bool = False

    def __post_init__(self) -> None:
        """Raises Malformed for what is no column."""
        if self.by not in BY_NAME:
            raise Malformed(f"--sort {self.by[:40]!r} is none of {', '.join(BY_NAME)}")


def arrange(rows: Iterable[Row], order: Order, wanted: Filter) -> list[Row]:
    """The rows to show. In a tree an exec that is wanted keeps its session's row, and a session its execs' order; what
    sorts equal stands by name, so that nothing moves without a reason."""
    shown = [row for row in rows if not order.live or row.is_live]
    if not order.tree:
        return _sorted([row for row in shown if not row.is_session and wanted.takes(row)], order)
    children: dict[tuple[str, str], list[Row]] = {}
    for row in shown:
        if not row.is_session and wanted.takes(row):
            children.setdefault((row.org, row.session), []).append(row)
    heads = [row for row in shown if row.is_session and (wanted.takes(row) or (row.org, row.session) in children)]
    return [
        each
        for head in _sorted(heads, order)
        for each in (head, *_sorted(children.get((head.org, head.session), []), order))
    ]


def _sorted(rows: list[Row], order: Order) -> list[Row]:
    column = BY_NAME[order.by]
    rows.sort(key=lambda row: row.key)
    rows.sort(key=column.sort_key, reverse=column.descending is not order.reverse)
    return rows
