"""The gateway as a part of the stack: started where a provider has a key, killed in mid-stream, with NATS away."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sandreel_bridge.gateway.client import GatewayClient
from sandreel_bridge.gateway.port import KeyStanding, VirtualKey, key_name
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.contract.codec import decode_event
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.contract.usage import UsageRecorded
from sandreel_core.embedded.stack import GATEWAY, NATS
from tests.support.gateway import PROVIDER_KEY, key_terms
from tests.support.http import call, opened
from tests.support.model_api import ModelApi, Reply, Tokens, steps
from tests.support.system import STREAM, Site, open_site, until
from tests.support.system_users import bus_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
MESSAGES: dict[str, Any] = {"model": "claude-sonnet-4-5", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": "hello"}]}  # fmt: skip


class Gated:
    """A stack with a gateway, before a stand-in of the provider."""

    def __init__(self, site: Site, api: ModelApi, bus: JetStreamBus) -> None:
        self.site, self.api, self.bus = site, api, bus
        self.client = GatewayClient(bus)
        port = site.stack.place.keys().gateway_port
        self.url = f"http://127.0.0.1:{port}/anthropic/v1/messages"

    async def mint(self, turn: str, **terms: Any) -> VirtualKey:
        return await self.client.mint(
            key_name("acme", "s1", 1, turn, 1), key_terms(turn, **({"models": ("claude-sonnet-4-5",)} | terms))
        )

    async def standing(self, key: VirtualKey) -> KeyStanding:
        found = await self.client.standing(key.name)
        assert found is not None
        return found

    async def events(self, key: VirtualKey) -> list[UsageRecorded]:
        subject, after, found = SessionSubjects("acme", "s1").event("usage"), 0, list[UsageRecorded]()
        while (stored := await self.bus.next(STREAM, subject, after=after)) is not None:
            after, event = stored.sequence, decode_event(subject, stored.body).data
            assert isinstance(event, UsageRecorded)
            found += [event] if event.key == key.name else []
        return found


@asynccontextmanager
async def gated(**settings: str) -> AsyncGenerator[Gated, None]:
    async with ModelApi() as api:
        own = {"ANTHROPIC_API_KEY": PROVIDER_KEY, "SANDREEL_GATEWAY_ANTHROPIC_URL": api.url} | settings
        async with open_site(stop_sessions=True, **own) as site, bus_of(site.stack) as bus:
            yield Gated(site, api, bus)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncGenerator[Gated, None]:
    async with gated(SANDREEL_GATEWAY_MAX_UNRECORDED="3") as found:
        yield found


async def test_it_confirms_mints_serves_and_settles(stack: Gated) -> None:
    assert (await stack.client.enforce("acme"))[0] == "claude-sonnet-5-5"
    key = await stack.mint("t1")
    stack.api.script = steps(Reply("hello", tokens=Tokens(10, 0, 0, 20)))
    answer = await call(stack.url, headers={"x-api-key": key.value}, body=MESSAGES)
    assert (answer.status, answer.complete) == (200, True)
    last = await stack.client.revoke(key.name)
    assert last is not None
    assert (last.calls, last.usage.cost_micro_usd, last.live) == (1, 330, False)
    assert [event.usage for event in await stack.events(key)] == [last.usage]


async def test_the_ledger_has_the_call_with_its_cost_and_the_version_of_its_price(stack: Gated) -> None:
    key = await stack.mint("t2")
    stack.api.script = steps(Reply("hello", tokens=Tokens(10, 0, 0, 20)))
    await call(stack.url, headers={"x-api-key": key.value}, body=MESSAGES)
    await stack.client.revoke(key.name)
    [event] = await stack.events(key)
    await stack.site.projected()
    names = "call_id, turn, key_name, response_model, input_tokens, output_tokens, cost_micro_usd, prices, complete"
    assert await stack.site.sql(f"SELECT {names} FROM reel.usage_ledger WHERE key_name = $1", key.name) == [
        (event.call_id, "t2", key.name, event.model, 10, 20, 330, event.prices, True)
    ]
    sums = "SELECT calls, cost_micro_usd FROM reel.usage_turns WHERE turn = $1"
    assert await stack.site.sql(sums, "t2") == [(1, 330)]


async def test_the_providers_key_is_the_gateways_alone(stack: Gated) -> None:
    """In no other role's environment, in no file but what the operator made, and in no log."""
    key = await stack.mint("t2")
    await call(stack.url, headers={"x-api-key": key.value}, body=MESSAGES)
    for name, part in stack.site.stack.parts.items():
        if name != GATEWAY and part.pid is not None:
            assert PROVIDER_KEY.encode() not in Path(f"/proc/{part.pid}/environ").read_bytes()
    for path in stack.site.data.rglob("*"):
        if path.is_file() and path.suffix in (".log", ".toml", ".json"):
            assert PROVIDER_KEY not in path.read_text(errors="replace"), path
            assert key.value not in path.read_text(errors="replace"), path


async def test_a_gateway_killed_in_mid_stream_comes_back_with_its_keys_and_what_they_spent(stack: Gated) -> None:
    key = await stack.mint("t3")
    headers = {"x-api-key": key.value}
    stack.api.script = steps(Reply("hello", tokens=Tokens(10, 0, 0, 20)))
    await call(stack.url, headers=headers, body=MESSAGES)
    await until(lambda: _settled(stack, key, 1), "the first call is settled")
    stack.api.script = steps(Reply("one two three", hang_after=4))
    async with opened(stack.url, headers=headers, body=MESSAGES) as cut:
        await anext(cut.pieces())
        await until(lambda: _written(stack), "the call under way is written down")
        await stack.site.kill(GATEWAY)
        await cut.read()
        assert not cut.complete
    after = await stack.standing(key)
    assert after.live
    assert after.calls == 2
    assert after.charged_micro_usd > 330
    stack.api.script = steps(Reply("hello", tokens=Tokens(10, 0, 0, 20)))
    assert (await call(stack.url, headers=headers, body=MESSAGES)).status == 200
    last = await stack.client.revoke(key.name)
    assert last is not None
    assert last.calls == 3
    events = await stack.events(key)
    assert [event.complete for event in events] == [True, False, True]
    assert len({event.call_id for event in events}) == 3


async def _settled(stack: Gated, key: VirtualKey, calls: int) -> bool:
    return (await stack.standing(key)).calls == calls and len(await stack.events(key)) == calls


async def _written(stack: Gated) -> bool:
    stored = await stack.bus.last("GATEWAY", "gateway.key.*")
    return stored is not None and b'"calls":[' in stored.body


async def test_with_nats_away_calls_go_on_up_to_the_bound_and_are_recorded_afterwards(stack: Gated) -> None:
    key = await stack.mint("t4")
    stack.api.script = steps(Reply("hello", tokens=Tokens(10, 0, 0, 20)))
    await stack.site.kill_and_hold(NATS)
    statuses = [(await call(stack.url, headers={"x-api-key": key.value}, body=MESSAGES)).status for _ in range(4)]
    await stack.site.release(NATS)
    assert statuses[0] == 200
    assert statuses[-1] == 503
    passed = statuses.count(200)
    await until(lambda: _settled_again(stack, key, passed), "what passed is recorded")
    assert (await call(stack.url, headers={"x-api-key": key.value}, body=MESSAGES)).status == 200


async def test_a_gateway_that_is_killed_while_nats_is_away_forgets_no_call(stack: Gated) -> None:
    """One that had ended and one under way, of which NATS has never heard; and nothing of it twice after one more kill."""
    key = await stack.mint("t5", budget_micro_usd=100_000)
    headers = {"x-api-key": key.value}
    stack.api.script = steps(Reply("hello", tokens=Tokens(10, 0, 0, 20)))
    await stack.site.kill_and_hold(NATS)
    assert (await call(stack.url, headers=headers, body=MESSAGES)).status == 200
    stack.api.script = steps(Reply("one two three", hang_after=4))
    async with opened(stack.url, headers=headers, body=MESSAGES) as cut:
        await anext(cut.pieces())
        await stack.site.kill_and_hold(GATEWAY)
        await cut.read()
    await stack.site.release(NATS)
    await stack.site.release(GATEWAY)
    await until(lambda: _settled_again(stack, key, 2), "both are recorded")
    await stack.site.kill(GATEWAY)
    after = await stack.standing(key)
    whole, cut_off = await stack.events(key)
    assert (whole.complete, whole.usage.cost_micro_usd, whole.call_id != cut_off.call_id) == (True, 330, True)
    assert (cut_off.complete, cut_off.usage.cost_micro_usd, cut_off.usage.output_tokens) == (False, None, 0)
    held = cut_off.charged_micro_usd
    assert held
    assert (after.calls, after.charged_micro_usd) == (2, 330 + held)
    last = await stack.client.revoke(key.name)
    assert last is not None
    assert (last.calls, last.charged_micro_usd, last.live) == (2, 330 + held, False)


async def _settled_again(stack: Gated, key: VirtualKey, calls: int) -> bool:
    try:
        return await _settled(stack, key, calls)
    except Exception:  # noqa: BLE001 - NATS is coming back
        return False
