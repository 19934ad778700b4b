"""`docs/views.md` is what the views say of themselves."""

from __future__ import annotations

from pathlib import Path

from sandreel_projections.access import TABLES, VIEWS
from sandreel_projections.catalogue import catalogue
from sandreel_projections.database import connected
from sandreel_projections.document import page
from sandreel_projections.examples import EXAMPLES

PAGE = Path(__file__).parents[2] / "docs" / "views.md"


async def test_the_page_is_not_behind_the_views(database: str) -> None:
    async with connected(database, "test") as connection:
        found = await catalogue(connection)
    assert page(found) == PAGE.read_text(), "run `make views`"
    names = {each.name for each in found.relations}
    assert names == {*TABLES, "quarantine", *VIEWS}, "what an analyst may read is all that there is"
    assert names | {each.name for each in found.functions} == {*EXAMPLES}
