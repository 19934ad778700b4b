"""Sessions and their execs as they stood at some place of the log: what ran, in which state, what it had printed last.

Pure. Fed with the events that the readers of execs hand out (`bus/execs.py`), in their order, up to that place.
"""

from __future__ import annotations

from base64 import b64decode
from collections import deque
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from sandreel_core import environment
from sandreel_core import exec as execs
from sandreel_core import session as sessions
from sandreel_core.contract import exec as x
from sandreel_core.contract.message import Envelope
from sandreel_core.contract.session import Requested
from sandreel_core.contract.subjects import EventSubject
from sandreel_core.contract.workspace import EnvPatched
from sandreel_core.linewise import Line, Lines

# What is kept of each stream so that its last lines can be told: this many lines, in no more blocks than this
# (a progress bar makes many without a newline).
MAX_LAST_LINES = 100
_MAX_BLOCKS = 256


class LastLine(Struct, frozen=True):
    """`at` is the server's time of the block that ended it, or that brought its newest part."""

    stream: x.Stream
    line: Line
    at_ns: int


class ExecAt(Struct, frozen=True, kw_only=True):
    """One exec as it stood.

    state         its fold; `lines` and `bytes` count what had been printed
    size          its terminal's, None without one
    accepted_ns, changed_ns   the server's time of its first and of its newest event up to there
    sequence      that of its newest event up to there
    last          the last lines, oldest first; the one that had not ended yet too
    missing       sentences about what the log does not hold of it
    """

    exec_id: str
    state: execs.Exec
    size: x.Terminal | None
    accepted_ns: int
    changed_ns: int
    sequence: int
    last: tuple[LastLine, ...]
    missing: tuple[str, ...]


class SessionAt(Struct, frozen=True, kw_only=True):
    """One session as it stood. `state.env` is the environment with every patch up to there."""

    org: str
    session: str
    state: sessions.Session
    sequence: int
    execs: tuple[ExecAt, ...]

    @property
    def running(self) -> tuple[ExecAt, ...]:
        return tuple(one for one in self.execs if one.state.phase in ("accepted", "running"))


class AsOf:
    """The fold of any number of sessions. `last_lines` (at most MAX_LAST_LINES) are kept for each exec."""

    def __init__(self, last_lines: int = 10) -> None:
        self._last_lines = min(last_lines, MAX_LAST_LINES)
        self._sessions: dict[tuple[str, str], _Session] = {}

    def take(self, where: EventSubject, event: Envelope, sequence: int, time_ns: int) -> None:
        """One event. Never raises; what does not fit changes nothing."""
        found = self._session(where)
        if where.aggregate == "exec":
            found.exec(where.key, self._last_lines).take(event, sequence, time_ns)
        elif where.aggregate == "session":
            found.state = sessions.evolve(found.state, event)
            found.sequence = sequence
            if isinstance(event.data, Requested):
                found.env = dict(event.data.env)
        elif where.aggregate == "workspace" and isinstance(event.data, EnvPatched):
            found.env = environment.patch(found.env, event.data.set, event.data.unset)[0]

    def lacks(self, where: EventSubject, sentence: str, *, begun: bool) -> None:
        """Something of an exec is not in the log any more. `begun`: it had been accepted; else that is not known, and
        its phase stays `none`."""
        found = self._session(where).exec(where.key, self._last_lines)
        found.missing.append(sentence)
        if begun:
            found.assume_accepted()

    def take_long(
        self, where: EventSubject, first: list[Envelope], last: Sequence[tuple[Envelope, int, int]], accepted_ns: int
    ) -> None:
        """An exec that had printed much: its first events, and of its last ones (event, sequence, time) those from some
        place on. What it had printed in all stands in its end, or in the last `exec.progress` among them."""
        found = self._session(where).exec(where.key, self._last_lines)
        for event in first:
            found.take(event, 0, accepted_ns)
        for event, sequence, time_ns in last:
            found.take(event, sequence, time_ns)

    def met(self, where: EventSubject) -> bool:
        """Whether anything was told of this exec."""
        found = self._sessions.get((where.org, where.session))
        return found is not None and where.key in found.execs

    def sessions(self) -> list[SessionAt]:
        """Every session that the log knew, by org and id."""
        return [
            SessionAt(
                org=org,
                session=id,
                state=replace(found.state, env=found.env),
                sequence=found.sequence,
                execs=tuple(one.told() for one in found.execs.values()),
            )
            for (org, id), found in sorted(self._sessions.items())
        ]

    def _session(self, where: EventSubject) -> _Session:
        key = where.org, where.session
        found = self._sessions.get(key)
        if found is None:
            found = self._sessions[key] = _Session()
        return found


class _Session:
    __slots__ = ("env", "execs", "sequence", "state")

    def __init__(self) -> None:
        self.state = sessions.Session()
        self.env: dict[str, str] = {}
        self.sequence = 0
        self.execs: dict[str, _Exec] = {}

    def exec(self, id: str, last_lines: int) -> _Exec:
        found = self.execs.get(id)
        if found is None:
            found = self.execs[id] = _Exec(id, last_lines)
        return found


class _Exec:
    """Output is most of what an exec's log holds: it is counted in place, and only its newest blocks are kept."""

    __slots__ = ("_accepted_ns", "_bytes", "_changed_ns", "_id", "_printed", "_sequence", "_size", "_state", "missing")

    def __init__(self, id: str, last_lines: int) -> None:
        self._id = id
        self._state = execs.Exec()
        self._size: x.Terminal | None = None
        self._accepted_ns = self._changed_ns = self._sequence = 0
        self._printed: dict[x.Stream, _Printed] = {"stdout": _Printed(last_lines), "stderr": _Printed(last_lines)}
        self.missing: list[str] = []

    def take(self, event: Envelope, sequence: int, time_ns: int) -> None:
        self._accepted_ns = self._accepted_ns or time_ns
        self._changed_ns, self._sequence = time_ns, sequence
        data = event.data
        if isinstance(data, x.Output):
            self._printed[data.stream].add(data, time_ns)
            return
        if isinstance(data, x.Progress):
            for stream, printed in self._printed.items():
                printed.lines, printed.bytes = data.lines.get(stream, 0), data.bytes.get(stream, 0)
            return
        self._state = execs.evolve(self._state, event)
        if isinstance(data, x.Started):
            self._size = data.tty
        elif isinstance(data, x.Resized):
            self._size = x.Terminal(cols=data.cols, rows=data.rows)
        elif isinstance(data, x.Gap):
            self.missing.append(f"events {data.from_n} to {data.to_n} will never come: {data.why}")
        elif isinstance(data, x.Truncated):
            self.missing.append(f"{data.stream} was cut at {data.limit_bytes} bytes, as asked")

    def assume_accepted(self) -> None:
        if self._state.phase == "none":
            self._state = replace(self._state, phase="accepted")

    def told(self) -> ExecAt:
        counted = {stream: printed for stream, printed in self._printed.items() if printed.bytes}
        end = self._state.exited
        state = replace(
            self._state,
            lines=dict(end.lines) if end else {stream: printed.lines for stream, printed in counted.items()},
            bytes=dict(end.bytes) if end else {stream: printed.bytes for stream, printed in counted.items()},
        )
        return ExecAt(
            exec_id=self._id,
            state=state,
            size=self._size,
            accepted_ns=self._accepted_ns,
            changed_ns=self._changed_ns,
            sequence=self._sequence,
            last=tuple(line for stream, printed in counted.items() for line in printed.last(stream, state.ended)),
            missing=tuple(self.missing),
        )


class _Printed:
    """One stream: how much, and the newest blocks, as few as hold the lines that are asked for."""

    __slots__ = ("_blocks", "_kept_lines", "_last_lines", "bytes", "lines")

    def __init__(self, last_lines: int) -> None:
        self.lines = 0
        self.bytes = 0
        self._last_lines = last_lines
        self._blocks: deque[tuple[x.Output, int]] = deque(maxlen=_MAX_BLOCKS)
        self._kept_lines = 0

    def add(self, block: x.Output, time_ns: int) -> None:
        self.bytes += execs.size_bytes(block)
        self.lines += block.count
        blocks = self._blocks
        if len(blocks) == _MAX_BLOCKS:
            self._kept_lines -= blocks.popleft()[0].count
        blocks.append((block, time_ns))
        self._kept_lines += block.count
        # One more than is asked for: the first line of the oldest block may lack its beginning.
        while self._kept_lines - blocks[0][0].count > self._last_lines:
            self._kept_lines -= blocks.popleft()[0].count

    def last(self, stream: x.Stream, over: bool) -> list[LastLine]:
        lines, found = Lines(), []
        for block, time_ns in self._blocks:
            found += [LastLine(stream, line, time_ns) for line in lines.feed(_bytes(block), block.line, 0)]
        found += [LastLine(stream, line, self._blocks[-1][1]) for line in lines.release(ended=over)]
        return found[len(found) - self._last_lines :] if len(found) > self._last_lines else found


def _bytes(block: x.Output) -> bytes:
    """What could not be decoded is told as nothing: the readers of single execs say so where it stands."""
    if block.base64 is None:
        return (block.text or "").encode()
    try:
        return b64decode(block.base64, validate=True)
    except ValueError:
        return b""
