"""A place in several partitions of the log: one cursor of each, with commas between."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sandreel_core.contract.cursor import Cursor
from sandreel_core.errors import Malformed

# More than an installation has partitions: a text is bounded.
MAX_CURSORS = 1024


@dataclass(frozen=True, slots=True, init=False)
class Cursors:
    """One place in each of several partitions, which are otherwise in no order among each other."""

    each: tuple[Cursor, ...]

    def __init__(self, each: Iterable[Cursor]) -> None:
        """Raises Malformed for two of one partition, none, or more than 1,024."""
        found = tuple(sorted(each, key=lambda cursor: cursor.partition))
        if not 1 <= len(found) <= MAX_CURSORS:
            raise Malformed(f"{len(found)} cursors are named; the limit is 1 to {MAX_CURSORS}")
        if len({cursor.partition for cursor in found}) < len(found):
            raise Malformed("two cursors are of one partition")
        object.__setattr__(self, "each", found)

    def __str__(self) -> str:
        return ",".join(map(str, self.each))

    def of(self, partition: int) -> Cursor:
        """Raises Malformed when it names none of that partition."""
        for cursor in self.each:
            if cursor.partition == partition:
                return cursor
        raise Malformed(f"{str(self)[:80]!r} names no place in partition {partition}")

    @classmethod
    def parse(cls, text: str) -> Cursor | Cursors:
        """One cursor, or several. Raises Malformed."""
        if "," not in text:
            return Cursor.parse(text)
        return cls(Cursor.parse(part) for part in text.split(",", MAX_CURSORS))
