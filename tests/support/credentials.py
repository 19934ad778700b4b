"""`sandreel credential` against a test's own stack."""

from __future__ import annotations

import asyncio
import os
import sys

from tests.support.system import Site


async def sandreel(site: Site, *words: str, value: str = "", code: int = 0) -> str:
    """What `sandreel credential …` printed, with `value` on its standard input."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sandreel_core.cli", "credential", *words, "--data", str(site.data)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={name: text for name, text in os.environ.items() if not name.startswith("SANDREEL_")},
    )
    said, _ = await process.communicate(value.encode())
    assert process.returncode == code, said.decode()
    assert "Traceback" not in said.decode()
    return said.decode()
