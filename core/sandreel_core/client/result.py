"""A whole exec in memory, with a cap on every stream that is collected."""

from __future__ import annotations

from dataclasses import dataclass, field

from sandreel_core.client.items import CaughtUp, Changed, Ended, ExecItem, Gap, Output
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor

DEFAULT_MAX_BYTES = 5 * 1024 * 1024  # behaviour §2.2: what the predecessor collects per stream


@dataclass(frozen=True, slots=True)
class Result:
    """How an exec ended and what it printed.

    exit_code   None on a signal, when it never started, and when it is lost
    stdout      the first `max_bytes` of it, byte for byte
    truncated   the streams of which there was more: than was collected, or than `*_max_bytes` let be kept
    lines       newlines per stream, also of what was not collected
    gaps        sentences about what the log does not hold; empty is the rule
    """

    exec_id: str
    exit_code: int | None
    signal: str | None
    reason: str
    stdout: bytes
    stderr: bytes
    truncated: frozenset[str]
    lines: dict[str, int]
    gaps: tuple[str, ...]
    duration_ms: int | None
    cursor: Cursor
    end: x.Exited | x.Lost

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    @property
    def text(self) -> str:
        """stdout for eyes: what is not UTF-8 is replaced."""
        return self.stdout.decode("utf-8", "replace")


@dataclass(slots=True)
class Collection:
    """Takes an exec's items and keeps at most `max_bytes` of each stream."""

    exec_id: str
    max_bytes: int = DEFAULT_MAX_BYTES
    _kept: dict[str, bytearray] = field(default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()})
    _lines: dict[str, int] = field(default_factory=lambda: {"stdout": 0, "stderr": 0})
    _truncated: set[str] = field(default_factory=set)
    _gaps: list[str] = field(default_factory=list)

    def take(self, item: ExecItem) -> Result | None:
        """The result, with the item that ends the exec."""
        match item:
            case Output():
                self._output(item)
            case Gap():
                self._gaps.append(item.why)
            case Ended():
                return self._end(item)
            case Changed():
                data = item.event.data
                if isinstance(data, x.Gap):
                    self._gaps.append(f"events {data.from_n} to {data.to_n} will never come: {data.why}")
                elif isinstance(data, x.Truncated):
                    self._truncated.add(data.stream)
            case CaughtUp():
                pass
        return None

    def _output(self, item: Output) -> None:
        kept = self._kept[item.stream]
        self._lines[item.stream] += item.count
        room = self.max_bytes - len(kept)
        kept += item.data[:room] if room < len(item.data) else item.data
        if room < len(item.data):
            self._truncated.add(item.stream)

    def _end(self, item: Ended) -> Result:
        exited = item.exited
        return Result(
            exec_id=self.exec_id,
            exit_code=item.exit_code,
            signal=exited.signal if exited else None,
            reason=exited.reason if exited else "lost",
            stdout=bytes(self._kept["stdout"]),
            stderr=bytes(self._kept["stderr"]),
            truncated=frozenset(self._truncated),
            lines=dict(self._lines),
            gaps=tuple(self._gaps),
            duration_ms=exited.duration_ms if exited else None,
            cursor=item.cursor,
            end=item.event.data,
        )
