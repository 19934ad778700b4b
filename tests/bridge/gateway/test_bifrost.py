"""Bifrost, before a double of its documented shapes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from sandreel_bridge.gateway.bifrost import Bifrost, reference
from sandreel_bridge.gateway.port import VirtualKey, key_name
from sandreel_core.errors import Refused, Unavailable
from tests.support import bifrost as doubles
from tests.support.gateway import key_terms

NAME = key_name("acme", "s1", 1, "t1", 1)
MODELS = ("anthropic/claude-sonnet-4-5", "openai/gpt-5.2")


@pytest.fixture
async def double() -> AsyncIterator[doubles.Bifrost]:
    async with doubles.bifrost() as double:
        yield double


@pytest.fixture
async def port(double: doubles.Bifrost) -> AsyncIterator[Bifrost]:
    async with Bifrost(double.url, doubles.USERNAME, doubles.PASSWORD, MODELS) as port:
        await port.provision("acme", "anthropic", "sk-one")
        yield port


def test_models_are_named_as_it_names_them() -> None:
    assert [reference(name) for name in ("a:b:c", "a/b:c@q4", "custom__x/y")] == ["a/b:c", "a/b:c", "custom__x/y"]


async def test_keys_are_enforced_before_a_turn_and_it_is_proven(port: Bifrost, double: doubles.Bifrost) -> None:
    assert await port.enforce("acme") == MODELS[:1]
    client = double.config["client_config"]
    assert (client["enforce_auth_on_inference"], client["enforce_governance_header"]) == (True, True)
    assert client["log_retention_days"] == 30
    assert client["drop_excess_requests"] is False
    assert double.config["auth_config"]["admin_password"] == doubles.PASSWORD
    puts = double.asked.count("PUT /api/config")
    await port.enforce("acme")
    assert double.asked.count("PUT /api/config") == puts
    double.lenient = True
    with pytest.raises(Unavailable, match="does not refuse calls without a key"):
        await port.enforce("acme")


async def test_an_org_without_a_key_of_its_own_gets_none(port: Bifrost) -> None:
    with pytest.raises(Refused, match="NO_PROVIDER"):
        await port.enforce("umbrella")
    with pytest.raises(Refused, match="sandreel-umbrella-anthropic"):
        await port.mint(key_name("umbrella", "s1", 1, "t1", 1), key_terms(org="umbrella", models=MODELS[:1]))


async def test_a_key_is_bound_to_the_orgs_key_its_models_and_its_budget(port: Bifrost, double: doubles.Bifrost) -> None:
    await port.mint(NAME, key_terms(models=("anthropic:claude-sonnet-4-5",), budget_micro_usd=1_500_000))
    [made] = double.keys.values()
    [config] = made["provider_configs"]
    assert config["allowed_models"] == ["claude-sonnet-4-5", "anthropic/claude-sonnet-4-5"]
    assert config["key_ids"] == list(double.providers["anthropic"])
    assert made["budget"]["max_limit"] == 1.5
    double.spend(NAME, 0.0000125)
    last = await port.revoke(NAME)
    assert last is not None
    assert (last.usage.cost_micro_usd, last.budget_micro_usd) == (12, 1_500_000)


async def test_keys_of_others_are_not_ours_and_pages_are_turned(port: Bifrost, double: doubles.Bifrost) -> None:
    for number in range(130):
        await port.mint(key_name("acme", "s1", 1, f"t{number}", 1), key_terms(models=MODELS[:1]))
    double.keys["other"] = next(iter(double.keys.values())) | {"id": "other", "name": "somebody's"}
    assert len(await port.live()) == 130


async def test_of_keys_that_were_minted_at_once_under_one_name_the_newest_stays_and_none_is_left(
    port: Bifrost, double: doubles.Bifrost
) -> None:
    """Also one whose answer was lost: whoever revokes the name revokes all of them, and their spend is not forgotten."""
    double.twice = True
    minted = await asyncio.gather(
        *(port.mint(NAME, key_terms(models=MODELS[:1])) for _ in range(3)), return_exceptions=True
    )
    values = [each.value for each in minted if isinstance(each, VirtualKey)]
    assert len([value for value in values if double.serves(value)]) == len(double.keys) == 1
    [one] = double.keys.values()
    double.keys["vk-lost"] = one | {"id": "vk-lost", "value": "sk-bf-lost", "budget": dict(one["budget"])}
    double.spend(NAME, 0.01)
    last = await port.revoke(NAME)
    assert last is not None
    assert (last.charged_micro_usd, double.keys) == (20_000, {})


async def test_what_it_says_has_bounds(port: Bifrost, double: doubles.Bifrost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandreel_bridge.gateway.bifrost._MAX_ANSWER_BYTES", 4000)
    double.flood = b"[" + b" " * 5000
    with pytest.raises(Unavailable, match="said more than 4000 bytes to GET"):
        await port.live()
    page = [
        {"id": f"{n}", "name": f"sandreel:acme.s.1.t{n}.1", "created_at": "2026-11-26T00:00:00Z"} for n in range(100)
    ]
    double.flood = json.dumps({"virtual_keys": page}).encode()
    monkeypatch.setattr("sandreel_bridge.gateway.bifrost._MAX_ANSWER_BYTES", 1 << 20)
    monkeypatch.setattr("sandreel_bridge.gateway.bifrost._MAX_KEYS", 300)
    with pytest.raises(Unavailable, match="lists more than 300 virtual keys"):
        await port.live()


async def test_two_installations_at_one_bifrost_end_no_key_of_each_other(
    port: Bifrost, double: doubles.Bifrost
) -> None:
    await port.mint(NAME, key_terms(models=MODELS[:1]))
    async with Bifrost(double.url, doubles.USERNAME, doubles.PASSWORD, MODELS, owner="staging") as other:
        assert await other.live() == []
        assert await other.revoke(NAME) is None
        await other.mint(NAME, key_terms(models=MODELS[:1]))
        assert await other.revoke(NAME) is not None
    assert [key.name for key in await port.live()] == [NAME]


async def test_what_it_says_of_an_error_and_the_password_are_not_passed_on(double: doubles.Bifrost) -> None:
    async with Bifrost(double.url, "admin", "wrong-password", MODELS) as port:
        with pytest.raises(Unavailable) as said:
            await port.live()
    assert "wrong-password" not in str(said.value)
    async with Bifrost("http://127.0.0.1:9", "admin", "p", MODELS) as port:
        with pytest.raises(Unavailable, match="does not answer"):
            await port.enforce("acme")
