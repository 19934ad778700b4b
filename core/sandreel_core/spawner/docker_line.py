"""What a container reads: one connection of the engine, which the SDK gives for reading alone."""

from __future__ import annotations

import os
import socket
from typing import Any


class Line:
    """The one writer of a container's standard input, which ends when this is closed. Blocking."""

    def __init__(self, attached: Any, timeout_s: float) -> None:
        self._attached = attached
        # The SDK's object reads only; a second descriptor of the same connection writes.
        self._socket = socket.socket(fileno=os.dup(attached.fileno()))
        self._socket.settimeout(timeout_s)

    def write(self, stdin: bytes) -> None:
        """All of it, and its end. Raises OSError."""
        self._socket.sendall(stdin)
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()
        self._attached._response.close()  # the connection is its, and the SDK offers no other way to it
