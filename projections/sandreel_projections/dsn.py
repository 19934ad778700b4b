"""Where the commands that read Postgres find it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sandreel_core.cli.connection import CLIENT_FILE, DATA
from sandreel_core.settings import CONFIG, Postgres, load


def dsn_of(args: argparse.Namespace) -> str:
    """From where the other commands take the bus: SANDREEL_CONFIG, else the file of `sandreel up`, and `SANDREEL_*`.

    Raises Misconfigured when none of them says it.
    """
    from sandreel_projections.queries import required  # noqa: PLC0415 - asyncpg, when the command runs

    environ = {name: value for name, value in os.environ.items() if name != "SANDREEL_ORG"}
    written = (args.data or Path(DATA)).expanduser() / CLIENT_FILE
    named = args.data is None and environ.get(CONFIG, "").strip()
    use_written = written.is_file() and not named
    return required(
        (load(Postgres, environ=environ, path=written) if use_written else load(Postgres, environ=environ)).dsn
    )
