"""An exec as an asciicast v3 (https://docs.asciinema.org/manual/asciicast/v3): a header line, then one event a line,
each with the seconds since the one before it. Pure.
"""

from __future__ import annotations

import codecs
import json
import shlex
from base64 import b64decode
from typing import Any

from sandreel_core.contract import exec as x
from sandreel_core.contract.message import Envelope, Unknown
from sandreel_core.json_line import harmless

# The exit status of an exec of which nobody knows how it ended: what `sandreel exec` ends with then.
_LOST = 125
_BY_SIGNAL = 128
_NOT_STARTED = 126


class Asciicast:
    """Takes an exec's events in their order and gives the file's lines, without newlines.

    title         of the recording
    idle_limit_s  a player shortens longer pauses to this; the recorded times stay as they are
    signals       numbers of signals by name, for the exit status 128 + n

    What a program printed that has no terminal gets a carriage return before each newline, as a terminal would add
    it. What is typed is never stored: there are markers with how much. Code points split between blocks are joined;
    what is no UTF-8 is replaced, because the format is JSON.
    """

    def __init__(self, title: str, *, signals: dict[str, int], idle_limit_s: float | None = None) -> None:
        self._title = title
        self._signals = signals
        self._idle_limit_s = idle_limit_s
        self._begun = False
        self._at_us = 0
        self._first_us = 0
        self._tty = False
        self._decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in ("stdout", "stderr")}
        self.events = 0

    @property
    def duration_s(self) -> float:
        """From the first event to the last one."""
        return (self._at_us - self._first_us) / 1e6

    def take(self, event: Envelope, time_ns: int) -> list[str]:
        """The lines that this event adds. `time_ns` is the server's."""
        data = event.data
        lines: list[str] = []
        if not self._begun and not isinstance(data, x.Accepted):
            # The header says the terminal's size, so it waits for the event that tells it.
            lines.append(self._header(data if isinstance(data, x.Started) else None, time_ns))
        if isinstance(data, x.Accepted):
            self._at_us = self._first_us = time_ns // 1000
            return []
        return lines + self._lines(event, time_ns)

    def missing(self, why: str) -> list[str]:
        """A marker where something belongs that cannot be had. Right behind what came before it."""
        if not self._begun:
            return [self._header(None, self._at_us * 1000), self._line("m", f"missing: {why}", self._at_us * 1000)]
        return [self._line("m", f"missing: {why}", self._at_us * 1000)]

    def rest(self) -> list[str]:
        """At the end of what there is: the header, if no event had brought it, and bytes of a code point that never became whole."""
        lines = [] if self._begun else [self._header(None, self._at_us * 1000)]
        left = [decoder.decode(b"", final=True) for decoder in self._decoders.values()]
        return lines + [self._line("o", text, self._at_us * 1000) for text in left if text]

    def _header(self, started: x.Started | None, time_ns: int) -> str:
        size = (started.tty if started else None) or x.Terminal()
        self._begun = True
        self._tty = started is not None and started.tty is not None
        self._at_us = self._at_us or time_ns // 1000
        self._first_us = self._first_us or self._at_us
        header: dict[str, Any] = {"version": 3, "term": {"cols": size.cols, "rows": size.rows}}
        header["timestamp"] = self._first_us // 1_000_000
        if self._idle_limit_s is not None:
            header["idle_time_limit"] = self._idle_limit_s
        if started is not None:
            header["command"] = started.shell if started.shell is not None else shlex.join(started.argv or [])
        header["title"] = self._title
        return _json(header)

    def _lines(self, event: Envelope, time_ns: int) -> list[str]:
        match event.data:
            case x.Output() as block:
                return self._output(block, time_ns)
            case x.Resized() as size:
                return [self._line("r", f"{size.cols}x{size.rows}", time_ns)]
            case x.StdinWritten() as written:
                how = "typed" if written.offset is not None else "written"
                end = ", then the end of input" if written.eof else ""
                return [self._line("m", f"input: {written.bytes} bytes {how}{end}", time_ns)]
            case x.Signalled() as signalled:
                return [self._line("m", f"{signalled.signal} ({signalled.why})", time_ns)]
            case x.Truncated() as cut:
                return [self._line("m", f"missing: {cut.stream} was cut at {cut.limit_bytes} bytes, as asked", time_ns)]
            case x.Gap() as gap:
                return [self._line("m", f"missing: events {gap.from_n} to {gap.to_n}: {gap.why}", time_ns)]
            case Unknown(raw_type=x.Output.type) as unknown:
                return [self._line("m", f"missing: output that cannot be read: {unknown.problem}", time_ns)]
            case x.Exited() as end:
                return [*self.rest(), self._line("x", str(self._status(end)), time_ns)]
            case x.Lost() as lost:
                why = f"lost ({lost.cause}): how it ended is not known"
                return [*self.rest(), self._line("m", why, time_ns), self._line("x", str(_LOST), time_ns)]
        return []

    def _output(self, block: x.Output, time_ns: int) -> list[str]:
        try:
            data = b64decode(block.base64, validate=True) if block.base64 else (block.text or "").encode()
        except ValueError:
            return [self._line("m", "missing: output whose base64 is damaged", time_ns)]
        text = self._decoders[block.stream].decode(data)
        if not self._tty:
            text = text.replace("\n", "\r\n")
        return [self._line("o", text, time_ns)] if text else []

    def _status(self, end: x.Exited) -> int:
        if end.exit_code is not None:
            return end.exit_code
        return _BY_SIGNAL + self._signals.get(end.signal, 15) if end.signal is not None else _NOT_STARTED

    def _line(self, code: str, data: str, time_ns: int) -> str:
        # Differences of whole microseconds: rounding does not add up over a long recording. A server's clock that was
        # set back stands still here until it is where it was.
        at_us = max(self._at_us, time_ns // 1000)
        interval_us, self._at_us = at_us - self._at_us, at_us
        self.events += 1
        return f'[{interval_us // 1_000_000}.{interval_us % 1_000_000:06d}, "{code}", {_json(data)}]'


def _json(value: Any) -> str:
    return harmless(json.dumps(value, ensure_ascii=False))
