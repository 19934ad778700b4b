"""What is told of decisions, and how often: the first of a kind at once, its repeats with their count. Pure.

A job can ask for a thousand connections a second. Neither the log nor a session's stream may grow with it, and nothing
that was refused may go untold.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from msgspec import Struct
from msgspec.structs import replace

WINDOW_S = 10.0
# What one session has open in its window; a scan of ports or names is told as a count beyond it.
MAX_KINDS = 32
OTHERS = "*"
TOO_MANY_KINDS = f"more than {MAX_KINDS} destinations within {WINDOW_S:.0f} s: these were not told one by one"


class Verdict(Struct, frozen=True, kw_only=True):
    """One decision. `code`: a word for logs and metrics; `why`: a sentence, empty for what was allowed.

    `org` and `session` are empty when the connection is nobody's.
    """

    org: str
    session: str
    host: str
    port: int
    code: str
    why: str = ""
    denied: bool = False  # else it was allowed, or failed for another reason than a rule


class Tally:
    """Counts verdicts until they are told. Bounded by MAX_KINDS times two a session, and by the sessions that there are."""

    def __init__(self, *, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._counts: dict[Verdict, int] = {}
        self._told_at: dict[Verdict, float] = {}
        self._kinds: defaultdict[tuple[str, str, bool], int] = defaultdict(int)

    def add(self, verdict: Verdict) -> None:
        if verdict not in self._counts:
            if self._kinds[_owner(verdict)] >= MAX_KINDS:
                verdict = replace(verdict, host=OTHERS, port=0, code="others", why=TOO_MANY_KINDS)
            if verdict not in self._counts:
                self._kinds[_owner(verdict)] += 1
                self._counts[verdict] = 0
        self._counts[verdict] += 1

    @property
    def untold(self) -> int:
        """Decisions that were not told yet."""
        return sum(self._counts.values())

    def due(self, now: float) -> list[tuple[Verdict, int]]:
        """What is to be told now, with its count; `now` of the monotonic clock. It counts as told."""
        told = []
        for verdict, count in list(self._counts.items()):
            if now - self._told_at.get(verdict, float("-inf")) < self._window_s:
                continue
            if count:
                told.append((verdict, count))
                self._counts[verdict], self._told_at[verdict] = 0, now
            else:
                self._forget(verdict)
        return told

    def rest(self) -> Counter[Verdict]:
        """Everything that is not told yet, for the end. It counts as told."""
        rest = Counter({verdict: count for verdict, count in self._counts.items() if count})
        for verdict in rest:
            self._counts[verdict] = 0
        return rest

    def _forget(self, verdict: Verdict) -> None:
        del self._counts[verdict]
        self._told_at.pop(verdict, None)
        self._kinds[_owner(verdict)] -= 1
        if not self._kinds[_owner(verdict)]:
            del self._kinds[_owner(verdict)]


def _owner(verdict: Verdict) -> tuple[str, str, bool]:
    return verdict.org, verdict.session, verdict.denied
