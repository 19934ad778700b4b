"""A place in one partition of the log, as viewers save it and SSE sends it: `<epoch>:<p>:<sequence>`."""

from __future__ import annotations

import re

from msgspec import Struct

from sandreel_core.errors import Malformed

_CURSOR = re.compile(r"\A([0-9a-z]{1,32}):([0-9]{1,5}):([0-9]{1,19})\Z")


class Cursor(Struct, frozen=True):
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
