"""A place in one partition of the log, as viewers save it and SSE sends it: `<epoch>:<p>:<sequence>`; and a place in
several, which is one cursor of each, with commas between."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sandreel_core.errors import Malformed

_CURSOR = re.compile(r"\A([0-9a-z]{1,32}):([0-9]{1,5}):([0-9]{1,19})\Z")
# More than an installation has partitions: a text is bounded.
MAX_CURSORS = 1024


@dataclass(frozen=True, slots=True, order=False)
class Cursor:
    """`epoch` was written into the stream when it was created: a cursor of a restored or another
    installation's stream is refused, not silently wrong. `sequence` 0 is before the first event."""

    epoch: str
    partition: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.partition}:{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises Malformed when the text is no cursor."""
        match = _CURSOR.match(text)
        if match is None:
            raise Malformed(f"cursor {text[:80]!r} is not of the form epoch:partition:sequence")
        return cls(match[1], int(match[2]), int(match[3]))

    def check(self, epoch: str) -> int:
        """The sequence, if the cursor belongs to the stream with this epoch. Raises Malformed otherwise."""
        if self.epoch != epoch:
            raise Malformed(
                f"cursor {self} belongs to epoch {self.epoch}, the stream's is {epoch}: it was restored or replaced; read from the beginning"
            )
        return self.sequence


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
