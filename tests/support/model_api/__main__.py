"""`python -m tests.support.model_api --port 18080`: the stand-in from a terminal, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import suppress

from tests.support.model_api.directives import directives
from tests.support.model_api.scenario import scenario
from tests.support.model_api.server import ModelApi, Seen


def main() -> None:
    parser = argparse.ArgumentParser(prog="model_api", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="(a free one)")
    parser.add_argument("--host", default="127.0.0.1", help="(127.0.0.1)")
    parser.add_argument("--every-s", type=float, default=0.0, help="pause between two words of a streamed text (0)")
    chosen = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(chosen.host, chosen.port, chosen.every_s))


async def _serve(host: str, port: int, every_s: float) -> None:
    async with ModelApi(directives(scenario(every_s)), host=host, port=port, tell=_tell) as api:
        sys.stdout.write(f"{api.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def _tell(seen: Seen) -> None:
    """One JSON object a line; the names of the headers, and no values: keys are among them."""
    shown = {"method": seen.method, "path": seen.path, "model": seen.model, "headers": sorted(seen.headers)}
    sys.stdout.write(json.dumps(shown) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
