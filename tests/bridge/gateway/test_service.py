"""The gateway's own life: orgs' settings that change, a second gateway, its doors, its settings, and who may ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from sandreel_bridge.gateway import wire
from sandreel_bridge.gateway.doors import Doors, addresses
from sandreel_bridge.gateway.orgs import Orgs, read_orgs
from sandreel_bridge.gateway.settings import Settings
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.clock import now
from sandreel_core.errors import Malformed, Misconfigured, Refused, Unavailable
from sandreel_core.keys import SealingKey
from sandreel_core.settings import load
from tests.support.gateway import gateway, key_terms
from tests.support.http import call
from tests.support.model_api import ModelApi, Reply, Tokens, steps

MESSAGES = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}


def test_an_org_has_its_own_and_what_is_absent_is_as_for_all(tmp_path: Path) -> None:
    path = tmp_path / "orgs.toml"
    path.write_text(
        '[acme]\nmodels = ["claude-opus-5-5"]\nbudget_micro_usd_per_month = 7\n[umbrella]\nproviders = []\n'
    )
    orgs = Orgs(
        Settings(
            anthropic_api_key="k",
            models=("claude-sonnet-4-5", "gpt-5.2"),
            orgs_file=str(path),
            user_budget_micro_usd_per_month=9,
        )
    )
    assert orgs.models("acme") == ("claude-opus-5-5",)
    assert (orgs.limits("acme").org_micro_usd, orgs.limits("acme").user_micro_usd) == (7, 9)
    assert orgs.models("others") == ("claude-sonnet-4-5",)  # OpenAI has no key
    with pytest.raises(Refused, match="the org umbrella may use no provider that has a key"):
        orgs.models("umbrella")
    assert not orgs.reload()
    path.write_text('[acme]\nmodels = ["claude-haiku-5-5"]\n')
    assert orgs.reload()
    assert orgs.models("acme") == ("claude-haiku-5-5",)
    path.write_text('[acme]\nmodel = ["x"]\n')
    with pytest.raises(Misconfigured, match=r"\[acme\] in .*orgs.toml: Object contains unknown field model"):
        orgs.reload()
    assert orgs.models("acme") == ("claude-haiku-5-5",)


def test_an_agent_s_models_are_those_that_its_dialect_reaches() -> None:
    several = Orgs(Settings(anthropic_api_key="k", openai_api_key="k"))
    assert several.models("acme")[0] == several.models("acme", "anthropic")[0] == "claude-sonnet-5-5"
    assert several.models("acme", "openai")[0] == "gpt-5.3-codex"
    assert set(several.models("acme")) == {*several.models("acme", "anthropic"), *several.models("acme", "openai")}
    with pytest.raises(
        Refused, match="NO_PROVIDER: the agent speaks to models of gemini, and of those the org acme has none"
    ):
        several.models("acme", "gemini")
    # Nobody knows whose a model without a price is.
    own = Orgs(Settings(anthropic_api_key="k", openai_api_key="k", models=("gpt-5.2", "own"), unpriced="allow"))
    assert own.models("acme", "anthropic") == ("own",)
    assert own.models("acme", "openai") == ("gpt-5.2", "own")


def test_an_orgs_file_that_is_none_is_said_to_be_so() -> None:
    for text, problem in (
        ("[", "is not TOML"),
        ("[a b]\n", "is not TOML"),
        ('["a b"]\n', "1 to 128 characters"),
        ("x = 1\n", "Expected object"),
    ):
        with pytest.raises(Misconfigured, match=problem):
            read_orgs(text, "t")
    with pytest.raises(Misconfigured, match="cannot be read: no such file"):
        Orgs(Settings(orgs_file="/nowhere/orgs.toml"))


def test_settings_that_are_mistakes_are_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="it serves sandboxes alone"):
        _ = Settings(listen="0.0.0.0:8600").address
    with pytest.raises(Misconfigured, match="it serves sandboxes alone"):
        _ = Settings(listen="[::]:8600").address
    with pytest.raises(Misconfigured, match="has both listen and networks"):
        _ = Settings(listen="127.0.0.1:1", networks=("10.0.0.0/8",)).ranges
    with pytest.raises(Misconfigured, match=r"0.0.0.0/0 is no IPv4 network of sandboxes"):
        _ = Settings(networks=("0.0.0.0/0",)).ranges
    with pytest.raises(Misconfigured, match="did you mean SANDREEL_GATEWAY_ANTHROPIC_API_KEY"):
        load(Settings, environ={"SANDREEL_GATEWAY_ANTHROPIC_APIKEY": "k"})
    (tmp_path / "openai_api_key").write_text("sk-o\n")
    settings = Settings(keys_directory=str(tmp_path), anthropic_api_key="sk-a").with_keys()
    assert settings.keys == {"anthropic": "sk-a", "openai": "sk-o"}
    assert "sk-" not in repr(settings)
    assert Settings(openai_url="https://x.example/v1/").url("openai") == "https://x.example"


async def test_changed_settings_of_orgs_count_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "orgs.toml"
    path.write_text("")
    async with ModelApi() as api, gateway(api, orgs_file=str(path)) as served:
        await served.client.enforce("acme")
        path.write_text('[acme]\nmodels = ["claude-haiku-5-5"]\n')
        async with asyncio.timeout(20):
            while await served.client.enforce("acme") != ("claude-haiku-5-5",):
                await asyncio.sleep(0.05)


async def test_a_second_gateway_takes_the_keys_over_and_the_first_ends() -> None:
    async with ModelApi(steps(Reply("hello", tokens=Tokens(0, 0, 0, 10)))) as api, gateway(api) as first:
        key = await first.mint()
        assert (
            await call(f"{first.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=MESSAGES)
        ).status == 200
        await first.recorded(1)
        async with gateway(api, bus=first.bus) as second:
            answer = await call(f"{second.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=MESSAGES)
            assert answer.status == 200
            async with asyncio.timeout(20):
                with pytest.raises(BaseExceptionGroup) as ended:
                    await asyncio.shield(first.task)
            assert ended.group_contains(Misconfigured, match="another gateway has taken the keys over")


async def test_an_orgs_month_holds_over_its_turns_and_a_restart() -> None:
    own: dict[str, Any] = {"org_budget_micro_usd_per_month": 1000}
    async with ModelApi(steps(Reply("hello", tokens=Tokens(0, 0, 0, 60)))) as api:
        async with gateway(api, **own) as served:
            key = await served.mint("t1")
            await call(f"{served.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=MESSAGES)
            last = await served.client.revoke(key.name)
            assert last is not None
            assert last.charged_micro_usd == 900
        async with gateway(api, bus=served.bus, **own) as again:
            key = await again.mint("t2")
            standing = await again.client.standing(key.name)
            assert standing is not None
            assert standing.budget_micro_usd == 100
            with pytest.raises(Refused, match="BUDGET_SPENT"):
                await again.mint("t3")


async def test_a_name_that_is_used_again_keeps_what_its_new_key_has_used() -> None:
    async with ModelApi() as api:
        async with gateway(api) as served:
            first = await served.mint()
            assert isinstance(served.bus, MemoryBus)
            await served.client.revoke(first.name)
            key = await served.mint()
            await call(f"{served.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=MESSAGES)
            await served.recorded(1)
        async with gateway(api, bus=served.bus) as again:
            standing = await again.client.standing(key.name)
            assert standing is not None
            assert (standing.live, standing.calls) == (True, 1)


async def test_a_key_that_nobody_ends_ends_by_itself() -> None:
    async with ModelApi() as api, gateway(api) as served:
        key = await served.mint(expires_at=now() + timedelta(seconds=0.3))
        async with asyncio.timeout(20):
            while await served.client.live():
                await asyncio.sleep(0.05)
        assert (
            await call(f"{served.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=MESSAGES)
        ).status == 401


async def test_while_nats_is_away_it_goes_on_up_to_its_bound_and_then_no_turn_may_start() -> None:
    """The bridge's way to it is another connection, so that it can still be asked."""
    async with ModelApi() as api, gateway(api, max_unrecorded=2) as served:
        assert isinstance(served.bus, MemoryBus)
        key = await served.mint()
        url, headers = f"{served.url}/anthropic/v1/messages", {"x-api-key": key.value}
        served.bus.go_away()
        statuses = [(await call(url, headers=headers, body=MESSAGES)).status for _ in range(4)]
        assert (statuses[0], statuses[-1]) == (200, 503)
        served.bus.come_back()
        events = await served.recorded(statuses.count(200))
        assert len({event.call_id for event in events}) == statuses.count(200)
        assert (await call(url, headers=headers, body=MESSAGES)).status == 200


async def test_a_value_is_sealed_to_the_asker_and_a_key_is_of_where_it_is_asked_for() -> None:
    async with ModelApi() as api, gateway(api) as served:
        seal, name = SealingKey(), "acme.s1.1.t1.1"
        import msgspec

        asked = wire.Mint(name=name, terms=key_terms(), seal=seal.public)
        said = await served.bus.request(wire.subject("acme", "s1", "mint"), msgspec.json.encode(asked))
        value = seal.open(msgspec.json.decode(said, type=wire.Minted).sealed).decode()
        assert value not in said.decode()
        for org, session in (("umbrella", "s1"), ("acme", "s2")):
            with pytest.raises(Malformed, match="is not of"):
                await served.bus.request(wire.subject(org, session, "mint"), msgspec.json.encode(asked))
        for budget in (0, -5):  # it would give back to the org what its turns hold
            with pytest.raises(Refused, match="BAD_REQUEST"):
                await served.mint("t2", budget_micro_usd=budget)
        for verb, body in (("mint", b"{}"), ("standing", b"["), ("nothing", b"{}")):
            with pytest.raises(Malformed):
                await served.bus.request(wire.subject("acme", "s1", verb), body)


async def test_without_a_gateway_the_bridge_is_told_what_to_set() -> None:
    from sandreel_bridge.gateway.client import GatewayClient

    with pytest.raises(Unavailable, match="ANTHROPIC_API_KEY"):
        await GatewayClient(MemoryBus()).enforce("acme")


async def test_doors_follow_the_addresses_of_this_machine() -> None:
    there = {IPv4Address("127.0.0.1"), IPv4Address("10.9.0.2")}
    heard: list[str] = []

    async def open(host: str, port: int) -> Callable[[], Awaitable[None]]:
        heard.append(f"+{host}:{port}")

        async def close() -> None:
            heard.append(f"-{host}")

        return close

    doors = Doors((IPv4Network("10.9.0.0/16"),), 8600, open, look=lambda: there)
    await doors.step()
    there.add(IPv4Address("10.9.4.2"))
    await doors.step()
    there.discard(IPv4Address("10.9.0.2"))
    await doors.step()
    assert heard == ["+10.9.0.2:8600", "+10.9.4.2:8600", "-10.9.0.2"]
    assert IPv4Address("127.0.0.1") in addresses()
