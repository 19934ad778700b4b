"""What a dialect is: how one API's requests are read and its replies are written. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.model_api.asked import Asked
from tests.support.model_api.script import Failure, Reply

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Api:
    """`asked` reads a request (its path, its body); `whole` is a reply in one piece, `events` one in pieces of SSE; `failure`
    the body of an error. `id` is a name for the reply that is new each time."""

    asked: Callable[[str, Json], Asked]
    whole: Callable[[Reply, Asked, str], Json]
    events: Callable[[Reply, Asked, str], Iterator[bytes]]
    failure: Callable[[Failure], Json]


def sse(data: Json | str, event: str = "") -> bytes:
    """One event of a stream of them."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def words(text: str) -> list[str]:
    return re.findall(r"\S+\s*", text) or [text]
