"""The gateway's documents: which gateway may write them, what an earlier version has written, and ends between two of them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from sandreel_bridge.gateway import account as accounts
from sandreel_bridge.gateway.account import Account, Key, Limits
from sandreel_bridge.gateway.store import GATEWAY, Store, documents
from sandreel_bridge.gateway.users import Users, part_of
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.clock import now
from sandreel_core.errors import Conflict, Refused, Unavailable
from tests.support.gateway import Gateway, gateway, key_terms
from tests.support.http import call
from tests.support.model_api import ModelApi, Reply, Tokens, steps

NOW = datetime(2026, 11, 26, tzinfo=UTC)
MESSAGES = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "x"}]}
COST = 330  # of 10 tokens in and 20 out


def key(name: str) -> Key:
    return Key(name=name, sha256="", terms=key_terms(), granted_micro_usd=0, created_at=NOW)


async def store(bus: MemoryBus, boot_id: str) -> Store:
    await bus.ensure([documents()])
    found = Store(bus)
    await found.take(boot_id)
    await found.load()
    return found


async def test_a_gateway_whose_keys_were_taken_over_never_writes_over_the_next_ones() -> None:
    bus = MemoryBus()
    first = await store(bus, "first")
    await first.save_account("acme", accounts.minted(Account(), key("a"), Limits(), NOW))
    second = await store(bus, "second")
    both = accounts.minted(Account(), key("b"), Limits(), NOW)
    await second.save_account("acme", both)
    for _ in range(3):
        with pytest.raises(Conflict):
            await first.save_account("acme", Account())
    assert (await second.load()).accounts == {"acme": both}


async def test_what_was_stored_and_not_confirmed_is_gone_on_from() -> None:
    bus = MemoryBus()
    found = await store(bus, "first")
    await found.save_account("acme", Account())
    bus.fate = lambda subject, body: "lose_ack"
    with pytest.raises(Unavailable):
        await found.save_account("acme", Account(spent_micro_usd={"2026-11": 1}))
    bus.fate = lambda subject, body: None
    await found.save_account("acme", Account(spent_micro_usd={"2026-11": 2}))
    assert (await found.load()).accounts["acme"].spent_micro_usd == {"2026-11": 2}


async def test_what_an_earlier_version_wrote_counts_on() -> None:
    """Also when it is killed after the first of the documents that it becomes."""
    bus = MemoryBus()
    await bus.ensure([documents()])
    live = msgspec.to_builtins(accounts.minted(Account(), key("a"), Limits(), NOW).keys)
    users = {"ada": 70, "bob": 30}
    earlier = {"month": "2026-11", "spent_micro_usd": 100, "users_micro_usd": users, "keys": live}
    await bus.append("gateway.account.acme", msgspec.json.encode(earlier))
    half = Users(spent_micro_usd={"2026-11": {"ada": 70}})
    await bus.append(f"gateway.users.acme.{part_of('ada')}", msgspec.json.encode(half))
    for _ in range(2):
        found = Store(bus)
        await found.take("it")
        loaded = await found.load()
        account = loaded.accounts["acme"]
        assert (account.spent(NOW), list(account.keys)) == (100, ["a"])
        assert {user: loaded.users["acme", part_of(user)].spent(user, NOW) for user in users} == users


async def ask(served: Gateway, value: str) -> None:
    headers = {"x-api-key": value}
    assert (await call(f"{served.url}/anthropic/v1/messages", headers=headers, body=MESSAGES)).status == 200


async def users_of(bus: Any) -> dict[str, int]:
    found = dict[str, int]()
    async with aclosing(bus.follow(GATEWAY, ["gateway.users.acme.*"], live=False)) as items:
        async for item in items:
            for stored in item if isinstance(item, list) else ():
                part = msgspec.json.decode(stored.body, type=Users)
                found |= {user: part.spent(user, now()) for of in part.spent_micro_usd.values() for user in of}
    return found


async def test_a_key_that_was_charged_to_its_user_and_not_yet_to_its_org_is_charged_once() -> None:
    """A gateway that was killed between the two documents: the key is live again, is used again, and ends again."""
    own: dict[str, Any] = {"user_budget_micro_usd_per_month": 1000}
    async with ModelApi(steps(Reply("hello", tokens=Tokens(10, 0, 0, 20)))) as api:
        async with gateway(api, **own) as first:
            assert isinstance(first.bus, MemoryBus)
            key = await first.mint()
            await ask(first, key.value)
            await first.recorded(1)
            account = await first.bus.last(GATEWAY, "gateway.account.acme")
            progress = await first.bus.last(GATEWAY, "gateway.key.*")
            assert account is not None
            assert progress is not None
            await first.client.revoke(key.name)
            assert await users_of(first.bus) == {"ada": COST}
        for stored in (account, progress):
            await first.bus.append(stored.subject, stored.body)
        async with gateway(api, bus=first.bus, **own) as again:
            await ask(again, key.value)
            last = await again.client.revoke(key.name)
            assert last is not None
            assert (last.calls, last.charged_micro_usd) == (2, 2 * COST)
            assert await users_of(again.bus) == {"ada": 2 * COST}
            rest = await again.mint("t2", budget_micro_usd=10**9)
            standing = await again.client.standing(rest.name)
            assert standing is not None
            assert standing.budget_micro_usd == 1000 - 2 * COST


async def test_more_users_than_one_document_holds_and_a_bound_for_live_keys_that_is_said() -> None:
    bus = MemoryBus(max_payload=16 * 1024)
    found, many = await store(bus, "seed"), 4000
    for part in {part_of(f"user-{number}@example.org") for number in range(many)}:
        mine = {each: 1000 for n in range(many) if part_of(each := f"user-{n}@example.org") == part}
        await found.save_users("acme", part, Users(spent_micro_usd={f"{now():%Y-%m}": mine}))
    own: dict[str, Any] = {"user_budget_micro_usd_per_month": 1000}
    async with ModelApi() as api, gateway(api, bus=bus, **own) as served:
        with pytest.raises(Refused, match=r"the user user-3999@example[.]org has nothing left of 1000"):
            await served.mint(user=f"user-{many - 1}@example.org")
        asked = [served.mint(f"t{number}", user=f"new-{number}") for number in range(40)]
        minted = await asyncio.gather(*asked, return_exceptions=True)
        refused = {each.code for each in minted if isinstance(each, Refused)}
        assert refused == {"TOO_MANY_KEYS"}
        for key in minted:
            if not isinstance(key, BaseException):
                last = await served.client.revoke(key.name)
                assert last is not None
                assert not last.live
        await served.mint("afterwards", user="new")
