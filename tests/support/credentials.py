"""`sandreel credential` against a test's own stack."""

from __future__ import annotations

from tests.support import program
from tests.support.system import Site


async def sandreel(site: Site, *words: str, value: str = "", code: int = 0) -> str:
    """What `sandreel credential …` printed, with `value` on its standard input."""
    done = await program.sandreel(site.data, "credential", *words, stdin=value.encode())
    assert done.code == code, done.said
    assert "Traceback" not in done.said
    return done.said
