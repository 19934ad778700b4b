"""What a restore has cost: how far the log reached as far as anybody still knows, against how far the copy does. Pure."""

from __future__ import annotations

from msgspec import Struct

from sandreel_core.backup.postgres import Place
from sandreel_core.backup.streams import Returned


class Loss(Struct, frozen=True, kw_only=True):
    """Of one stream. `last_known` is the greatest sequence that is known to have been stored, None where nobody knows.

    lost          events between the copy's end and that, at least
    until         when the last of them was stored, by the server's clock, where known
    known_from    who told: the stream that was replaced, or the views
    """

    stream: str
    restored_to: int
    restored_at: str | None
    last_known: int | None
    lost: int | None
    until: str | None = None
    known_from: str | None = None

    def __str__(self) -> str:
        at = f" ({self.restored_at})" if self.restored_at else ""
        kept = f"{self.stream}: the copy ends at {self.restored_to:,}{at}"
        if self.lost is None:
            return f"{kept}; nobody knows how far the lost stream reached, so what is lost cannot be counted"
        if not self.lost:
            return f"{kept}; {self.known_from} knew of nothing behind it"
        until = f", up to {self.until}" if self.until else ""
        more = "" if self.known_from == "the stream" else "; what was stored behind that cannot be known"
        return f"{kept}; {self.lost:,} events are lost{until} ({self.known_from} reached {self.last_known:,}){more}"


def loss(returned: Returned, places: list[Place]) -> Loss:
    """`places`: how far the views had read before they were emptied; those of another epoch tell nothing."""
    name, copy = returned.copy.name, returned.copy
    restored_to = returned.state.last_sequence
    known: list[tuple[int, str | None, str]] = []
    # One that was replaced is the same stream only if its epoch is: another may have taken its name since.
    if returned.lost is not None and returned.lost.epoch == copy.epoch:
        known.append((returned.lost.last_sequence, None, "the stream"))
    known += [
        (max(place.sequence, place.seen), place.at, "the views")
        for place in places
        if place.stream == name and place.epoch == copy.epoch
    ]
    last, until, source = max(known, key=lambda each: (each[0], each[2] == "the stream"), default=(None, None, None))
    return Loss(
        stream=name,
        restored_to=restored_to,
        restored_at=copy.last_at,
        last_known=last,
        lost=None if last is None else max(0, last - restored_to),
        until=until,
        known_from=source,
    )
