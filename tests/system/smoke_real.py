"""`make smoke-real`: one small turn with the real API of every provider whose key is in the environment.

    python -m tests.system.smoke_real

What is skipped, and why, is said; without a key that is everything, and the exit code is 0. It costs some cents: each turn has
a budget of 25. Sessions are containers where the image with the agents is built (`make image-agents`); else they are processes, and
need the agents' programs on the PATH. `tests/docker/test_smoke_real.py` runs it before a stand-in of the providers.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

from sandreel_core import clock, log
from sandreel_core.client import Client, ClientSettings
from sandreel_core.contract.subjects import CMD, reel
from sandreel_core.embedded.stack import Stack
from sandreel_core.images import image
from sandreel_core.settings import load
from tests.support import engine
from tests.support.real_agents import missing

ORG = "smoke"
BUDGET_USD = "0.25"
_TURN_WITHIN_S = 300.0


class Way(NamedTuple):
    """Whose key, the agent that speaks to that provider, and its program."""

    key: str
    agent: str
    program: str


WAYS = (
    Way("ANTHROPIC_API_KEY", "claude-code", "claude"),
    Way("OPENAI_API_KEY", "codex", "codex"),
    Way("GEMINI_API_KEY", "gemini-cli", "gemini"),
)


def possible(environ: Mapping[str, str], no_images: str | None) -> dict[Way, str | None]:
    """Each way whose key is there, with the path of its program where it has none in an image; what is skipped is said."""
    found: dict[Way, str | None] = {}
    for way in WAYS:
        path = shutil.which(way.program, path=environ.get("PATH")) if no_images else None
        if not environ.get(way.key, "").strip():
            _say(f"skipped: {way.agent}, since {way.key} is not set")
        elif path is None and no_images:
            _say(
                f"skipped: {way.agent}, since there is no program {way.program!r} on the PATH, and no container: {no_images}"
            )
        else:
            found[way] = path
    return found


async def smoke(environ: Mapping[str, str]) -> list[str]:
    """What was wrong, in sentences."""
    no_images = missing()
    ways = possible(environ, no_images)
    if not ways:
        _say("nothing was run: set one of " + ", ".join(way.key for way in WAYS))
        return []
    with tempfile.TemporaryDirectory(prefix="sandreel-smoke-") as folder:
        data = Path(folder)
        data.chmod(0o711)
        if no_images is None:
            settings = {"SANDREEL_STACK_BACKEND": "docker", "SANDREEL_DOCKER_AGENT_IMAGE": image("session-agents")}
        else:
            programs = ",".join(f"{way.program}={path}" for way, path in ways.items())
            settings = {"SANDREEL_STACK_BACKEND": "process", "SANDREEL_BRIDGE_PROGRAMS": programs}
        keys = {way: environ[way.key].strip() for way in ways}
        installation = None
        try:
            async with Stack(data, environ=dict(environ) | settings) as stack:
                installation = stack.place.keys().installation
                problems = [problem for way in ways for problem in await _turn(stack, way, keys[way])]
                return problems + await _leaks(stack, list(keys.values()))
        finally:
            if installation is not None and no_images is None:
                await asyncio.to_thread(engine.sweep, installation)
                await asyncio.to_thread(engine.unfence, installation)


async def _turn(stack: Stack, way: Way, key: str) -> list[str]:
    """As an operator runs one, and what is wrong with it."""
    word = clock.new_token("w")[:9]
    session = f"smoke-{way.agent}"
    _say(f"\n── {way.agent}")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sandreel_core.cli", "turn", "--data", str(stack.data), "--org", ORG),
        *("--agent", way.agent, "--session", session, "--id", "smoke", "--budget", BUDGET_USD),
        f"Create the file word.txt that holds just the word {word}, and then answer with that word alone.",
    )
    try:
        async with asyncio.timeout(_TURN_WITHIN_S):
            code = await child.wait()
    except TimeoutError:
        child.kill()
        return [f"{way.agent}: no end after {_TURN_WITHIN_S:g} s"]
    if code:
        return [f"{way.agent}: exit code {code}"]
    settings = load(ClientSettings, environ={}, path=stack.client)
    async with Client.connect(settings, actor="smoke") as client:
        turn = await client.open_turn(ORG, "smoke", session)
        result, calls = await turn.finished(), await turn.calls(settled_within_s=10)
        seen = await client.run(ORG, session, shell="cat repo/word.txt word.txt 2>/dev/null; env")
    problems = []
    if word not in (result.text or ""):
        problems.append(f"{way.agent}: it did not answer with the word, but {result.text!r}")
    if word not in seen.text:
        problems.append(f"{way.agent}: there is no word.txt with the word in it")
    if not calls or any(call.usage.cost_micro_usd is None for call in calls):
        problems.append(f"{way.agent}: {len(calls)} calls were counted, and not each has a price")
    if key in seen.text:
        problems.append(f"{way.agent}: the provider's key is in the session's environment")
    return problems


async def _leaks(stack: Stack, keys: list[str]) -> list[str]:
    """Where a provider's key stands that should stand nowhere."""
    settings = load(ClientSettings, environ={}, path=stack.client)
    problems = []
    async with Client.connect(settings, actor="smoke") as client:
        for stream in (CMD, *(reel(partition) for partition in range(client.partitions))):
            async with aclosing(client.bus.follow(stream, [">"], live=False)) as items:
                async for item in items:
                    for stored in item if isinstance(item, list) else ():
                        problems += [f"a provider's key is in {stream}, {stored.subject}" for key in keys if key.encode() in stored.body]  # fmt: skip
    logs = (path.read_bytes() for path in (stack.data / "logs").glob("*.log"))
    problems += ["a provider's key is in a log" for text in logs for key in keys if key.encode() in text]
    return problems


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    log.set_up("smoke")
    problems = asyncio.run(smoke(os.environ))
    for problem in problems:
        _say(f"WRONG: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
