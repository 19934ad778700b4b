"""One suite over everything that implements the gateway's port: the built-in one over the bus, Bifrost before its double, and the
memory twin that tests of turns use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from sandreel_bridge.gateway.bifrost import Bifrost
from sandreel_bridge.gateway.port import Gateway, KeyTerms, key_name
from sandreel_core.errors import Refused
from tests.support.bifrost import PASSWORD, USERNAME, bifrost
from tests.support.gateway import gateway, key_terms
from tests.support.http import call
from tests.support.memory_gateway import MemoryGateway
from tests.support.model_api import ModelApi

NAME = key_name("acme", "s1", 1, "t1", 1)


@dataclass
class Rig:
    gateway: Gateway
    models: tuple[str, ...]
    passes: Callable[[str], Awaitable[bool]]
    """Whether a call with this value would pass."""

    def terms(self, **more: Any) -> KeyTerms:
        return key_terms(**({"models": self.models[:1]} | more))


@pytest.fixture(params=["built-in", "bifrost", "memory"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            memory = MemoryGateway()

            async def held(value: str) -> bool:
                return any(memory.values[name] == value for name, key in memory.keys.items() if key.live)

            yield Rig(memory, memory.models, held)
        elif request.param == "bifrost":
            double = await stack.enter_async_context(bifrost())
            models = ("anthropic:claude-sonnet-4-5@q8", "openai/gpt-5.2")
            port = await stack.enter_async_context(Bifrost(double.url, USERNAME, PASSWORD, models))
            await port.provision("acme", "anthropic", "sk-provider")

            async def serves(value: str) -> bool:
                return double.serves(value)

            yield Rig(port, ("anthropic/claude-sonnet-4-5",), serves)
        else:
            api = await stack.enter_async_context(ModelApi())
            served = await stack.enter_async_context(gateway(api, models=("claude-sonnet-4-5", "claude-haiku-4-5")))

            async def passes(value: str) -> bool:
                body = {"model": "claude-sonnet-4-5", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
                return (
                    await call(f"{served.url}/anthropic/v1/messages", headers={"x-api-key": value}, body=body)
                ).status == 200

            yield Rig(served.client, ("claude-sonnet-4-5", "claude-haiku-4-5"), passes)


async def test_it_confirms_and_names_the_orgs_models_the_default_first(rig: Rig) -> None:
    assert await rig.gateway.enforce("acme") == rig.models


async def test_a_key_is_live_from_its_minting_to_its_end(rig: Rig) -> None:
    assert await rig.gateway.standing(NAME) is None
    assert await rig.gateway.live() == []
    key = await rig.gateway.mint(NAME, rig.terms())
    assert key.name == NAME
    assert key.value not in repr(key)
    assert await rig.passes(key.value)
    standing = await rig.gateway.standing(NAME)
    assert standing is not None
    assert (standing.live, standing.org, standing.session, standing.turn) == (True, "acme", "s1", "t1")
    assert [each.name for each in await rig.gateway.live()] == [NAME]
    last = await rig.gateway.revoke(NAME)
    assert last is not None
    assert not last.live
    assert not await rig.passes(key.value)
    assert await rig.gateway.live() == []


async def test_minting_again_replaces(rig: Rig) -> None:
    old = await rig.gateway.mint(NAME, rig.terms())
    new = await rig.gateway.mint(NAME, rig.terms())
    assert old.value != new.value
    assert not await rig.passes(old.value)
    assert await rig.passes(new.value)
    assert len(await rig.gateway.live()) == 1


async def test_revoking_what_never_was_or_is_over_is_no_error(rig: Rig) -> None:
    assert await rig.gateway.revoke(NAME) is None
    await rig.gateway.mint(NAME, rig.terms())
    await rig.gateway.revoke(NAME)
    again = await rig.gateway.revoke(NAME)
    assert again is None or not again.live


async def test_a_model_that_is_not_the_orgs_is_refused(rig: Rig) -> None:
    if isinstance(rig.gateway, MemoryGateway):
        return  # it takes every model
    with pytest.raises(Refused) as refused:
        await rig.gateway.mint(NAME, rig.terms(models=("nobodys",)))
    assert refused.value.code == "MODEL_NOT_ALLOWED"
