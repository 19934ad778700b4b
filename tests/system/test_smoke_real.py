"""`make smoke-real` with keys that are none, before a stand-in of the providers: what it does with real ones, but for their answers."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Mapping

import pytest

from tests.support import engine
from tests.support.model_api import Failure, ModelApi, Reply, Shell
from tests.support.model_api.asked import Asked
from tests.support.real_agents import PROVIDERS, address, missing
from tests.system.smoke_real import WAYS

CLAUDE, CODEX, GEMINI = WAYS
# Two of them: a default model that is another provider's would be noticed, and a third costs ten seconds.
KEYS = {way.key: f"a-key-of-nobody-for-{way.program}" for way in (CLAUDE, CODEX)}
_NAMES = {way.key for way in WAYS}


async def run(environ: Mapping[str, str]) -> tuple[int | None, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("SANDREEL_") and name not in _NAMES
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.system.smoke_real"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**kept, **environ},
    )
    said, _ = await child.communicate()
    return child.returncode, said.decode()


def obedient(asked: Asked) -> Reply | Failure:
    """Writes the word that the prompt asks for into its file, and says it; to Codex it says another one."""
    prompt = next(index for index, item in enumerate(asked.items) if "holds just the word" in item.text)
    [word] = re.findall(r"just the word (\w+),", asked.items[prompt].text)
    if asked.rounds_after(prompt) == 0:
        return Reply(Shell(f"printf {word} > word.txt"))
    return Reply("something else" if asked.dialect == "responses" else word)


@pytest.mark.timeout(60)
async def test_without_a_key_it_says_so_and_does_nothing() -> None:
    code, said = await run({})
    assert code == 0
    for way in WAYS:
        assert f"skipped: {way.agent}, since {way.key} is not set" in said
    assert said.endswith("nothing was run: set one of ANTHROPIC_API_KEY, OPENAI_API_KEY, GEMINI_API_KEY\n")


@pytest.mark.timeout(240)
@pytest.mark.xdist_group("docker")
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
async def test_with_keys_each_provider_s_agent_does_its_turn_and_what_is_wrong_is_found() -> None:
    async with ModelApi(obedient, host=address()) as api:
        urls = {f"SANDREEL_GATEWAY_{provider}_URL": api.url for provider in PROVIDERS}
        code, said = await run({**KEYS, **urls, "SANDREEL_DOCKER_POOL": engine.POOL})
    wrong = [line for line in said.splitlines() if line.startswith("WRONG")]
    assert wrong == ["WRONG: codex: it did not answer with the word, but 'something else'"], said
    assert code == 1
    assert said.count("■ success") == len(KEYS)
    assert f"skipped: {GEMINI.agent}, since {GEMINI.key} is not set" in said
    # Each was asked for a model of its own provider, with that provider's key.
    models = {seen.asked.dialect: seen.asked.model for seen in api.seen if seen.asked is not None}
    assert {dialect: model.partition("-")[0] for dialect, model in models.items()} == {
        "anthropic": "claude",
        "responses": "gpt",
    }
    paid = {key for seen in api.seen for key in KEYS.values() if key in " ".join(seen.headers.values())}
    assert paid == set(KEYS.values())
