"""What the projector is told: `[projections]` and `SANDREEL_PROJECTIONS_*`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from sandreel_core.settings import Postgres, Section


class Projections(Section, frozen=True, kw_only=True):
    """Bounds of one transaction, and how often the lag is noted."""

    section: ClassVar[str] = "projections"
    postgres: Postgres = Postgres()
    max_batch_events: Annotated[int, Meta(ge=1, le=100_000)] = 4000
    max_batch_bytes: Annotated[int, Meta(ge=1 << 16, le=1 << 30)] = 8 << 20
    look_s: Annotated[float, Meta(gt=0, le=3600)] = 2.0
