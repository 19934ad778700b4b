"""Finds hundreds of byte strings in a block at once, at the speed of one look at every sixteenth byte. Pure.

A needle of m bytes covers, wherever it stands, a place that is a multiple of the stride s, and with it four bytes (a gram)
that begin at one of its first s offsets, if m >= s + 3. So a block is looked at at every s-th place only: is the gram there one
of those of a needle? In ordinary output it hardly ever is, and the loop that asks is C's (`map`, `compress`). Where it
is, the needle's first s + 3 bytes (its head) are looked up, and what has the same head is compared. That is linear
in the block's size whatever stands in it, and does not depend on how many needles there are.

A regular expression of the same needles tries each of them at nearly every byte: docs/decisions/0036 has the figures.
"""

from __future__ import annotations

import sys
from itertools import compress, count

GRAM_BYTES = 4
# The longer a needle, the fewer places have to be looked at. The last is for the shortest.
_STRIDES = (16, 8, 4)
MIN_NEEDLE_BYTES = _STRIDES[-1] + GRAM_BYTES - 1


class Finder:
    """A set of needles, each of at least MIN_NEEDLE_BYTES."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._sieves: list[_Sieve] = []
        # Of every needle, as far as its sieve cannot see that they begin.
        self._beginnings: set[bytes] = set()
        self._longest_beginning = 0

    def add(self, needle: bytes) -> None:
        """Raises ValueError for one that is too short."""
        if len(needle) < MIN_NEEDLE_BYTES:
            raise ValueError(f"a needle has at least {MIN_NEEDLE_BYTES} bytes")
        stride = next(stride for stride in _STRIDES if len(needle) >= stride + GRAM_BYTES - 1)
        sieve = next((sieve for sieve in self._sieves if sieve.stride == stride), None)
        if sieve is None:
            sieve = _Sieve(stride)
            self._sieves.append(sieve)
        sieve.add(needle)
        longest = min(len(needle) - 1, sieve.head_bytes - 1)
        self._beginnings.update(needle[:size] for size in range(1, longest + 1))
        self._longest_beginning = max(self._longest_beginning, longest)

    def find(self, data: bytes) -> tuple[list[tuple[int, int]], int]:
        """The parts that needles cover, in order, those that overlap or touch as one; and where the longest suffix
        begins that is the beginning of a needle and not all of it (len(data): there is none)."""
        found: list[tuple[int, int]] = []
        begins_at = len(data)
        for sieve in self._sieves:
            begins_at = min(begins_at, sieve.find(data, found))
        for size in range(min(self._longest_beginning, len(data)), len(data) - begins_at, -1):
            if data[-size:] in self._beginnings:
                begins_at = len(data) - size
                break
        return _merged(found) if found else found, begins_at


class _Sieve:
    """The needles that one stride fits."""

    __slots__ = ("_grams", "_heads", "head_bytes", "stride")

    def __init__(self, stride: int) -> None:
        self.stride = stride
        self.head_bytes = stride + GRAM_BYTES - 1
        # Gram, as the machine's own integer: at which offsets of a needle it stands.
        self._grams: dict[int, tuple[int, ...]] = {}
        self._heads: dict[bytes, tuple[bytes, ...]] = {}

    def add(self, needle: bytes) -> None:
        head = needle[: self.head_bytes]
        known = self._heads.get(head, ())
        if needle in known:
            return
        self._heads[head] = (*known, needle)
        for offset in range(self.stride):
            gram = int.from_bytes(head[offset : offset + GRAM_BYTES], sys.byteorder)
            offsets = self._grams.get(gram, ())
            if offset not in offsets:
                self._grams[gram] = (*offsets, offset)

    def find(self, data: bytes, found: list[tuple[int, int]]) -> int:
        """Appends where needles stand, in no order; where the first begins that does not end in `data`, if its head is there
        (else len(data))."""
        end = begins_at = len(data)
        grams = memoryview(data)[: end - end % GRAM_BYTES].cast("I")[:: self.stride // GRAM_BYTES]
        for at in compress(count(0, self.stride), map(self._grams.__contains__, grams)):
            for offset in self._grams[grams[at // self.stride]]:
                start = at - offset
                if start < 0:
                    continue
                for needle in self._heads.get(data[start : start + self.head_bytes], ()):
                    if start + len(needle) <= end:
                        if data.startswith(needle, start):
                            found.append((start, start + len(needle)))
                    elif start < begins_at and needle.startswith(data[start:]):
                        begins_at = start
        return begins_at


def _merged(found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found.sort()
    merged = [found[0]]
    for start, end in found:
        last_start, last_end = merged[-1]
        if start <= last_end:
            merged[-1] = last_start, max(last_end, end)
        else:
            merged.append((start, end))
    return merged
