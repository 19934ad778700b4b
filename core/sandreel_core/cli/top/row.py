"""One line of the screen: a session, or an exec of it. Pure data."""

from __future__ import annotations

from msgspec import Struct

from sandreel_core.exec import ENDED
from sandreel_core.session import ACTIVE

# Of what was printed last so many characters are kept, its end.
MAX_LINE = 240


class Row(Struct, frozen=True, kw_only=True):
    """What is known of it at one moment. What does not apply, or has not been heard yet, is None.

    state           phase of the session or exec; an exec that exited has its code or signal in `ending`
    lines           complete lines of both streams; of a session: those of its execs that are followed
    lines_per_s     smoothed over `rate.SMOOTHING_S`
    last_line       what was printed last, at most `MAX_LINE` characters, as the job wrote it
    age_s           since it was requested or accepted; None where that was before the reading began
    quiet_s         since its last event
    live_execs, spool_bytes, held, beat_age_s   of a session's last heartbeat
    fence           of a session that runs: none, proven or unfenced
    cursor          of its newest event that was taken
    """

    org: str
    session: str
    exec: str = ""
    state: str
    ending: str = ""
    lines: int = 0
    lines_per_s: float = 0.0
    last_line: str = ""
    age_s: float | None = None
    quiet_s: float | None = None
    execs: int | None = None
    live_execs: int | None = None
    spool_bytes: int | None = None
    held: bool = False
    beat_age_s: float | None = None
    fence: str = ""
    reason: str = ""
    cursor: str = ""

    @property
    def is_session(self) -> bool:
        return not self.exec

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from every other row, for as long as it is shown."""
        return self.org, self.session, self.exec

    @property
    def name(self) -> str:
        return self.exec or self.session

    @property
    def is_live(self) -> bool:
        """A session that has, or is about to have, a sandbox; an exec that has not ended."""
        return self.state in ACTIVE if self.is_session else self.state not in ENDED
