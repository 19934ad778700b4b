"""What a client has to know: where the bus is, and in whose name it asks."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from sandreel_core.contract.message import Org
from sandreel_core.settings import Bus, Section


class ClientSettings(Section, frozen=True, kw_only=True):
    """`[client]` and `[bus]`.

    org               whose sessions the command line means when nothing else is said
    actor             who asks: stands in every command, and in the event that answers it
    answer_timeout_s  how long to wait for a command's outcome
    """

    section: ClassVar[str] = "client"
    bus: Bus = Bus()
    org: Org = "default"
    actor: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    answer_timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 30.0
