"""The unacknowledged window of one subject: go-back-N without its IO (design §3). Pure.

Two rules make it exact. An acknowledgement counts only in the round in which everything before it was sent as
well: a copy that an earlier round stored may stand behind a hole. And a number that was ever sent keeps its body
for good: when the server refuses a body outright, or a restored stream has a hole, the gap covers every number
that this window has used, and what was behind the hole goes out again under fresh numbers. Nothing that could
still be sent is lost, and no late copy can be taken for something else. A body that is refused now may still have
been stored by an earlier round whose answer was lost: only the log can tell, so it is asked before a gap is made.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, Protocol

from sandreel_core.errors import SandreelError


class Author(Protocol):
    """Writes the bodies that only the owner of a subject can write."""

    def gap(self, n: int, from_n: int, why: str) -> bytes:
        """The body of the event with ordinal `n` that says: `from_n` to `n - 1` never come."""

    def renumber(self, body: bytes, n: int) -> bytes:
        """The same event with another ordinal."""


# How to go on after a refusal: all is settled, send again at once, send again later, or ask the log first.
Verdict = Literal["settled", "again", "later", "doubt"]


class Entry:
    """One message.

    keep   whatever the server says, it is sent until it is stored (gaps and the end)
    doubt  an earlier round sent it and nobody knows whether it was stored
    """

    __slots__ = ("acked", "body", "doubt", "gap_from", "keep", "n", "refused", "token")

    def __init__(self, n: int, body: bytes, keep: bool, gap_from: int = 0) -> None:
        self.n = n
        self.body = body
        self.keep = keep
        self.gap_from = gap_from
        self.acked = False
        self.doubt = False
        self.refused: SandreelError | None = None
        self.token = 0


class Window:
    """Entries from the first unacknowledged ordinal on; the first `sent` of them are under way."""

    __slots__ = ("_author", "_refusals", "bytes", "entries", "next_n", "sent")

    def __init__(self, author: Author, next_n: int = 1) -> None:
        self._author = author
        self._refusals = 0
        self.entries: deque[Entry] = deque()
        self.next_n = next_n
        self.sent = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, body: bytes, n: int, *, keep: bool = False) -> None:
        """Append a body that was written as `n`; it is written anew if that is not the next ordinal (any more)."""
        if n != self.next_n:
            body = self._author.renumber(body, self.next_n)
        self._append(Entry(self.next_n, body, keep))

    def unsent(self) -> Entry | None:
        """What to send next; nothing while a refused entry waits for its predecessors."""
        return self.entries[self.sent] if self.sent < len(self.entries) and not self._refusals else None

    @property
    def has_hole(self) -> bool:
        """A later entry was acknowledged and the first one was not: on one connection, its answer never comes."""
        return self.sent > 1 and not self.entries[0].acked and any(entry.acked for entry in self.entries)

    def acknowledge(self, entry: Entry) -> bool:
        """An answer of this round. True when at least one entry was released."""
        entry.acked = True
        return self._release()

    def refuse(self, entry: Entry, why: SandreelError) -> None:
        """The server will never take this body. `settle` acts on it as soon as it is the first."""
        if entry.refused is None:
            self._refusals += 1
        entry.refused = why

    def settle(self) -> Verdict:
        """Put a gap in the place of refused entries at the front, if it is sure that they are not stored."""
        head = self.entries[0] if self.entries else None
        if head is None or head.refused is None:
            return "settled"
        if head.keep:
            return "later"
        if head.doubt:
            return "doubt"
        why, from_n, until_n = f"refused: {head.refused}", head.n, head.n
        while self.entries and self._is_hopeless(self.entries[0]):
            until_n = self.entries[0].n
            self._drop_first()
        self._skip(from_n, until_n, why)
        return "again"

    def go_back(self) -> list[int]:
        """Begin a new round: everything is unsent again. The tokens of the old round, whose answers mean nothing now."""
        tokens = [entry.token for entry in self.entries if entry.token]
        for entry in self.entries:
            entry.doubt = entry.doubt or entry.acked or entry.token != 0
            entry.acked, entry.refused, entry.token = False, None, 0
        self.sent = self._refusals = 0
        return tokens

    def reconcile(self, last_n: int, why: str) -> bool:
        """The log holds everything up to `last_n` and has a hole behind it: release what it has, and explain
        what it has lost. Call between rounds. True when there was something to explain."""
        for entry in self.entries:
            entry.doubt = False
        while self.entries and self.entries[0].n <= last_n:
            self._drop_first()
        first = self.entries[0] if self.entries else None
        first_n = first.n if first is not None else self.next_n
        if first is not None and first.gap_from:
            first_n = first.gap_from
        if first_n <= last_n + 1:
            return False
        if first is not None and first.gap_from:
            self._drop_first()
        self._skip(last_n + 1, first_n - 1, why)
        return True

    def _is_hopeless(self, entry: Entry) -> bool:
        return entry.refused is not None and not entry.keep and not entry.doubt

    def _skip(self, from_n: int, until_n: int, why: str) -> None:
        """`from_n` to `until_n` are gone: a gap over every number in use, then the rest under fresh numbers."""
        rest = list(self.entries)
        if rest:
            why = f"{why} ({from_n} to {until_n}; {rest[0].n} to {rest[-1].n} follow under new numbers)"
        self.entries.clear()
        self.bytes = 0
        n = self.next_n
        self._append(Entry(n, self._author.gap(n, from_n, why[:4000]), True, from_n))
        for entry in rest:
            self._append(Entry(self.next_n, self._author.renumber(entry.body, self.next_n), entry.keep))

    def _append(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.bytes += len(entry.body)
        self.next_n = entry.n + 1

    def _release(self) -> bool:
        released = False
        while self.entries and self.entries[0].acked:
            self._drop_first()
            released = True
        return released

    def _drop_first(self) -> None:
        entry = self.entries.popleft()
        self.bytes -= len(entry.body)
        self.sent = max(0, self.sent - 1)
        if entry.refused is not None:
            self._refusals -= 1
