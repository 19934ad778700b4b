"""Structured logging: one JSON object a line on stderr, a constant phrase plus fields.

The standard library's logging, because runnerd may depend on nothing more (docs/decisions/0002).
Never a secret, never output: fields are ids, counts, codes and sentences.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO


class Log:
    """A named logger whose methods take a constant phrase and fields."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"sandreel.{name}")

    def debug(self, phrase: str, **fields: Any) -> None:
        self._logger.debug(phrase, extra={"fields": fields})

    def info(self, phrase: str, **fields: Any) -> None:
        self._logger.info(phrase, extra={"fields": fields})

    def warning(self, phrase: str, **fields: Any) -> None:
        self._logger.warning(phrase, extra={"fields": fields})

    def error(self, phrase: str, **fields: Any) -> None:
        self._logger.error(phrase, extra={"fields": fields})

    def exception(self, phrase: str, **fields: Any) -> None:
        """As `error`, with the traceback of the exception that is being handled."""
        self._logger.error(phrase, extra={"fields": fields}, exc_info=True)


class JsonLines(logging.Formatter):
    """`{"time", "level", "log", "event", …fields}`."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "role": self._role,
            "log": record.name,
            "event": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def set_up(role: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Log to `stream` (stderr) from now on. Called once, by a role's `main`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logger = logging.getLogger("sandreel")
    logger.handlers.clear()  # what `for_people` has set up: a command that serves has a log of its own
    logger.propagate = True
    logger.setLevel(level.upper())


def for_people(stream: TextIO | None = None) -> None:
    """Warnings as one line each, `sandreel: …`, for a command at a terminal; nothing below them."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(logging.Formatter("sandreel: %(message)s"))
    logger = logging.getLogger("sandreel")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.WARNING)
    logger.propagate = False


@contextmanager
def diverted(tell: Callable[[str], None]) -> Iterator[None]:
    """While the block is open warnings go to `tell`, a phrase each, and not to stderr: a job has the terminal."""
    handler = _Teller(tell)
    logger = logging.getLogger("sandreel")
    before = logger.handlers[:]
    logger.handlers[:] = [handler]
    try:
        yield
    finally:
        logger.handlers[:] = before


class _Teller(logging.Handler):
    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())
