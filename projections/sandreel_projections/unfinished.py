"""A rebuild that was begun: alone, and gone on with only if all that it was begun with is still so."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from sandreel_core import __version__
from sandreel_core.contract.subjects import reel
from sandreel_core.errors import Conflict, Misconfigured
from sandreel_projections import schemas
from sandreel_projections.database import Connection, translated
from sandreel_projections.history import Lineage, listed
from sandreel_projections.order import Order, made_of
from sandreel_projections.report import Report
from sandreel_projections.schemas import FRESH, Mark
from sandreel_projections.source import Source
from sandreel_projections.swap import live_cursors
from sandreel_projections.tables import SCHEMA

# "rebu" in ASCII: one rebuild at a time.
LOCK = 0x72656275
# The server needs a moment to see that a rebuild was killed.
_ALONE_WITHIN_S = 2.0
_LOOK_S = 0.2

# Makes a schema of this name, empty, of the newest version, and returns that version.
MakeSchema = Callable[[str], Awaitable[str]]


async def alone(control: Connection) -> None:
    """Take the lock of rebuilds, which goes with the connection. Raises Conflict, in one line, when another has it."""
    deadline_s = time.monotonic() + _ALONE_WITHIN_S
    while True:
        with translated():
            if await control.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
                return
        if time.monotonic() > deadline_s:
            break
        await asyncio.sleep(_LOOK_S)
    raise Conflict(
        "another rebuild runs: there is one at a time; `sandreel projections status` says where and since when"
    )


async def begin(
    control: Connection,
    order: Order,
    sources: Sequence[Source],
    epochs: dict[str, str],
    lineages: Mapping[str, Lineage],
    make_schema: MakeSchema,
    report: Report,
) -> Mark:
    """The mark of the rebuild that is gone on with, or of a new one. `epochs` are those of the streams now.

    Raises Misconfigured, Unavailable.
    """
    archive = archive_files(order.archive, lineages)
    mark = await schemas.mark_of(control)
    if mark is not None:
        problem = await _outdated(control, order, sources, mark, epochs, archive)
        if not problem:
            since = f"{mark.begun_at:%Y-%m-%d %H:%M:%S} UTC"
            report.say("goes_on", f"goes on with the rebuild of {since}", begun_at=mark.begun_at.isoformat())
            return mark
        report.say("begun_anew", f"begins anew: {problem}", why=problem)
    await schemas.drop(control, FRESH)
    version = await make_schema(FRESH)
    mark = Mark(
        begun_at=datetime.now(UTC),
        version=version,
        program=program(),
        tables=await _wanted_tables(control, order, sources),
        epochs=epochs,
        archive=archive,
    )
    await _check_version(control, version)
    await schemas.set_mark(control, mark)
    what = ", ".join(f"{SCHEMA}.{name}" for name in mark.tables) or "every view"
    report.say("begins", f"rebuilds {what} in the schema {FRESH}", tables=mark.tables, schema=FRESH)
    return mark


async def _outdated(
    control: Connection,
    order: Order,
    sources: Sequence[Source],
    mark: Mark,
    epochs: dict[str, str],
    archive: list[str],
) -> str:
    """Why what is there is of no use; empty when it is."""
    live, fresh = await live_cursors(control), await live_cursors(control, FRESH)
    if mark.program != program() or mark.version != await schemas.version_of(control, FRESH):
        return "what was begun is of another version of sandreel"
    if mark.epochs != epochs:
        return "a stream was restored or replaced since"
    if mark.archive != archive:
        return "execs were archived since"
    if mark.tables != await _wanted_tables(control, order, sources):
        return "what was begun is of other views"
    for stream, reached in fresh.items():
        at = live.get(stream)
        if at is not None and at.epoch == reached.epoch and at.sequence < reached.sequence:
            return "the live views are behind it"
        to = order.to
        if to is not None and stream == reel(to.partition) and reached.sequence > to.sequence:
            return f"what was begun is beyond {to}"
    return ""


async def _wanted_tables(control: Connection, order: Order, sources: Sequence[Source]) -> list[str]:
    """Empty for all. Raises Misconfigured for what is no view, or not made from the log."""
    if not order.views:
        return []
    return made_of(sources, order.views, await schemas.tables_behind(control, order.views))


async def _check_version(control: Connection, version: str) -> None:
    live = await schemas.version_of(control, SCHEMA)
    if live not in (None, version):
        raise Misconfigured(
            f"the live views are of version {live}, this program's is {version}: run python -m sandreel_migrations"
        )


def archive_files(directory: Path | None, lineages: Mapping[str, Lineage]) -> list[str]:
    """The files of these streams."""
    return [
        f"{stream}/{part.manifest.file}"
        for stream, epochs in lineages.items()
        for part in listed(directory, stream, epochs)
    ]


def program() -> str:
    """The version of the folds: that of sandreel, and a digest of the code, which a checkout changes without it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return f"{__version__} {digest.hexdigest()[:16]}"
