"""What `sandreel doctor` asks of the views' database: is it there, is its schema the newest, how far is it behind."""

from __future__ import annotations

from typing import Any

from sandreel_core.cli.check import Check
from sandreel_core.errors import Malformed, Misconfigured, SandreelError
from sandreel_migrations.upgrade import VERSIONS, head
from sandreel_projections.queries import select

_LOOK_WITHIN_S = 10.0
# `reel.projection_lag` says: more than 15 s since the projector looked means that it is away.
_AWAY_S = 15.0
_BEHIND_S = 10.0


async def views(dsn: str) -> list[Check]:
    """Never raises: what is wrong is what it returns."""
    try:
        asked = "SELECT version_num, obj_description('reel.schema_version'::regclass) FROM reel.schema_version"
        version = await _rows(dsn, asked)
    except (Malformed, Misconfigured) as error:
        mend = "run `python -m sandreel_migrations`, which `sandreel up` does as well; look at [postgres] dsn"
        return [Check(name="views' schema", level="fail", found=str(error), mend=mend)]
    except SandreelError as error:
        mend = "start it (`sandreel up`), or look at [postgres] dsn"
        return [Check(name="Postgres reachable", level="fail", found=str(error), mend=mend)]
    reachable = Check(name="Postgres reachable", level="ok", found="answers")
    return [reachable, _schema(*(version[0] if version else ("none", None))), *await _lag(dsn)]


def _schema(version: str, comment: str | None) -> Check:
    if version == head():
        found = f"version {version}, the newest"
        _, _, lacks = (comment or "").partition(f"{VERSIONS}; ")
        if not lacks:
            return Check(name="views' schema", level="ok", found=found)
        mend = (
            "`sandreel projections rebuild --accept-differences` reads it all into the new tables, beside the live ones"
        )
        return Check(name="views' schema", level="warn", found=f"{found}, {lacks}", mend=mend)
    mend = "run `python -m sandreel_migrations`, which `sandreel up` does as well"
    return Check(name="views' schema", level="fail", found=f"version {version}, the newest is {head()}", mend=mend)


async def _lag(dsn: str) -> list[Check]:
    columns = "stream, lag_events, lag_s, looked_s_ago, quarantined_events"
    try:
        rows = await _rows(dsn, f"SELECT {columns} FROM reel.projection_lag ORDER BY stream")  # noqa: S608 - our own
    except SandreelError as error:
        return [Check(name="projector's lag", level="fail", found=str(error), mend="look at the projector's log")]
    if not rows:
        mend = "start the projector (`sandreel up`)"
        return [Check(name="projector's lag", level="warn", found="no projector has written yet", mend=mend)]
    return [_one(*row) for row in rows]


def _one(stream: str, events: int, lag_s: float, looked_s_ago: float | None, quarantined: int) -> Check:
    name = f"projector's lag, {stream}"
    found = f"{events} events, {lag_s:.1f} s behind"
    if looked_s_ago is None:  # after a rebuild, until the projector has looked again
        mend = "wait; if it stays, start the projector, or look at its log"
        return Check(name=name, level="warn", found="nobody has looked at the stream yet", mend=mend)
    if looked_s_ago > _AWAY_S:
        found = f"nobody has looked at the stream for {looked_s_ago:.0f} s"
        return Check(name=name, level="fail", found=found, mend="start the projector, or look at its log")
    if lag_s > _BEHIND_S:
        return Check(name=name, level="warn", found=found, mend="wait; if it grows, look at the projector's log")
    if quarantined:
        found += f", {quarantined} events in quarantine"
        return Check(
            name=name,
            level="warn",
            found=found,
            mend="`sandreel projections quarantine ls` says what they are and why, `quarantine retry` tries again",
        )
    return Check(name=name, level="ok", found=found)


async def _rows(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    async with select(dsn, statement, timeout_s=_LOOK_WITHIN_S) as answer:
        return [row async for row in answer.rows]
