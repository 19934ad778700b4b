"""What `sandreel doctor` asks of the vault: which key seals it, and whether a rotation was left half-way."""

from __future__ import annotations

from typing import Any

from sandreel_core.cli.check import Check
from sandreel_core.errors import SandreelError
from sandreel_projections.queries import select

_LOOK_WITHIN_S = 10.0
_SEALED = """
SELECT i.key_id, count(c.slug), count(c.slug) FILTER (WHERE c.key_id <> i.key_id)
FROM vault.installation i LEFT JOIN vault.credentials c ON c.key_id IS NOT NULL GROUP BY i.key_id"""


async def vault(dsn: str) -> list[Check]:
    """Never raises. Nothing where the database has no vault, and where it does not answer: others say that."""
    try:
        if not (await _rows(dsn, "SELECT to_regclass('vault.installation') IS NOT NULL"))[0][0]:
            return []
        ((key_id, values, others),) = await _rows(dsn, _SEALED)
    except SandreelError:
        return []
    if others:
        found = f"{others} of {values} values are sealed with another key than {key_id}"
        return [Check(name="vault", level="warn", found=found, mend="finish it: run `sandreel credential rewrap`")]
    return [Check(name="vault", level="ok", found=f"{values} values, sealed with the key {key_id}")]


async def _rows(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    async with select(dsn, statement, timeout_s=_LOOK_WITHIN_S) as answer:
        return [row async for row in answer.rows]
