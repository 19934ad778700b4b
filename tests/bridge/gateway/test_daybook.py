"""What the gateway has let through stands in its own file before NATS has it: killed at any point, it charges and records each call once."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandreel_bridge.gateway.account import Key, Tally
from sandreel_bridge.gateway.daybook import (
    FILE,
    Began,
    Daybook,
    Dropped,
    Ended,
    Entry,
    Sent,
    open_daybook,
    read_entries,
)
from sandreel_bridge.gateway.keyring import at_last
from sandreel_bridge.gateway.measures import GatewayMeasures
from sandreel_bridge.gateway.purse import OpenCall, Purse
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.streams import streams
from sandreel_core.contract.codec import encode, seal
from sandreel_core.contract.turn import Usage
from sandreel_core.contract.usage import UsageRecorded
from sandreel_core.errors import Misconfigured, Unavailable
from sandreel_core.health import Health
from sandreel_core.metrics import Metrics
from tests.support.gateway import Gateway, gateway, key_terms
from tests.support.http import call, opened
from tests.support.model_api import ModelApi, Reply, Tokens, steps

NOW = datetime(2026, 11, 26, tzinfo=UTC)
SUBJECT = "evt.0.acme.s1.usage"
MESSAGES = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "x"}]}
COST = 330  # of 10 tokens in and 20 out


def key(name: str = "k", since: datetime = NOW) -> Key:
    return Key(name=name, sha256="", terms=key_terms(), granted_micro_usd=10**9, created_at=since)


def used(id: str, cost: int) -> UsageRecorded:
    usage = Usage(input_tokens=1, output_tokens=1, cost_micro_usd=cost)
    return UsageRecorded(call_id=id, provider="anthropic", model="m", usage=usage, meter="t", complete=True)


def ended(purse: Purse, event: UsageRecorded | None, id: str) -> Ended | Dropped:
    found: dict[str, Any] = {"key": purse.key.name, "since": purse.key.created_at, "step": purse.step, "call_id": id}
    if event is None:
        return Dropped(**found)
    body = encode(seal(event, id=id, source="/t", subject=SUBJECT, time=NOW))
    return Ended(**found, subject=SUBJECT, event=msgspec.Raw(body))


@given(st.lists(st.tuples(st.integers(0, 4), st.none() | st.integers(0, 9)), max_size=24), st.data())
def test_whatever_nats_has_of_a_key_the_file_tells_the_rest(
    steps: list[tuple[int, int | None]], data: st.DataObject
) -> None:
    """`progress` is of any step, and the file begins anywhere before it, as it is emptied only when NATS has everything."""
    purse = Purse(key(), Tally())
    entries: list[Entry] = []
    snapshots = [purse.progress]
    for number, (name, cost) in enumerate(steps):
        id = str(name)
        if id in purse.calls:
            event = None if cost is None else used(f"{id}.{number}", cost)
            purse.settle(id, event)
            entries.append(ended(purse, event, id))
        else:
            purse.take(OpenCall(call_id=id, provider="anthropic", model="m", held_micro_usd=number))
            entries.append(Began(key="k", since=NOW, step=purse.step, call=purse.calls[id]))
        snapshots.append(purse.progress)
    saved = data.draw(st.integers(0, len(entries)))
    emptied = data.draw(st.integers(0, saved))
    lines = b"".join(msgspec.json.encode(each) + b"\n" for each in entries[emptied:])
    read, size = read_entries(lines, Path("t"))
    assert size == len(lines)
    found = at_last(key(), snapshots[saved], [each for each in read if not isinstance(each, Sent)])
    assert found.progress == purse.progress


def test_a_line_that_is_not_whole_is_left_out_and_any_other_is_said() -> None:
    line = msgspec.json.encode(
        Began(key="k", since=NOW, step=1, call=OpenCall(call_id="c", provider="p", model="m", held_micro_usd=1))
    )
    found, size = read_entries(line + b"\n\n" + line[:-5], Path("t"))
    assert (len(found), size) == (1, len(line) + 2)
    with pytest.raises(Misconfigured, match=r"line 2 of t cannot be read \(.*\): what calls used stands there"):
        read_entries(line + b"\n" + line[:-5] + b"\n" + line + b"\n", Path("t"))


async def ask(served: Gateway, value: str) -> int:
    return (await call(f"{served.url}/anthropic/v1/messages", headers={"x-api-key": value}, body=MESSAGES)).status


async def test_what_was_used_while_nats_was_away_is_recorded_and_charged_once(tmp_path: Path) -> None:
    """A gateway that ends then, and the next one, and one more; the key is charged what its calls cost."""
    own: dict[str, Any] = {"state_directory": str(tmp_path), "org_budget_micro_usd_per_month": 10_000}
    async with ModelApi(steps(Reply("hello", tokens=Tokens(10, 0, 0, 20)))) as api:
        async with gateway(api, **own) as first:
            assert isinstance(first.bus, MemoryBus)
            key = await first.mint()
            assert await ask(first, key.value) == 200
            await first.recorded(1)
            first.bus.go_away()
            assert [await ask(first, key.value) for _ in range(3)] == [200] * 3
        first.bus.come_back()
        for _ in range(2):
            async with gateway(api, bus=first.bus, **own) as again:
                events = await again.recorded(4)
                standing = await again.client.standing(key.name)
                assert standing is not None
                assert (standing.calls, standing.charged_micro_usd) == (4, 4 * COST)
        assert [event.usage.cost_micro_usd for event in events] == [COST] * 4
        assert len({event.call_id for event in events}) == 4
        async with gateway(api, bus=first.bus, **own) as last:
            assert (await last.client.revoke(key.name)) is not None
            rest = await last.mint("t2", budget_micro_usd=10**9)
            standing = await last.client.standing(rest.name)
            assert standing is not None
            assert standing.budget_micro_usd == 10_000 - 4 * COST


async def test_a_call_under_way_that_nats_was_never_told_of_is_cut_and_charged_what_it_held(tmp_path: Path) -> None:
    own: dict[str, Any] = {"state_directory": str(tmp_path)}
    async with ModelApi(steps(Reply("one two three", hang_after=3))) as api:
        async with gateway(api, **own) as first:
            assert isinstance(first.bus, MemoryBus)
            key = await first.mint()
            first.bus.go_away()
            url = f"{first.url}/anthropic/v1/messages"
            async with opened(url, headers={"x-api-key": key.value}, body=MESSAGES | {"stream": True}) as cut:
                await anext(cut.pieces())
                left = (tmp_path / FILE).read_bytes()
        # As SIGKILL would have left it.
        first.bus.come_back()
        (tmp_path / FILE).write_bytes(left)
        async with gateway(api, bus=first.bus, **own) as again:
            [event] = await again.recorded(1)
            standing = await again.client.standing(key.name)
    assert (event.complete, event.usage, event.usage.cost_micro_usd) == (False, Usage(), None)
    assert standing is not None
    assert (standing.calls, standing.charged_micro_usd) == (1, event.charged_micro_usd)
    assert event.charged_micro_usd is not None
    assert event.charged_micro_usd >= 100 * 15  # as much as it might have answered


async def test_a_key_that_had_the_name_before_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    own: dict[str, Any] = {"state_directory": str(tmp_path)}
    async with ModelApi(steps(Reply("hello", tokens=Tokens(10, 0, 0, 20)))) as api:
        async with gateway(api, **own) as first:
            key = await first.mint()
            assert await ask(first, key.value) == 200
            await first.client.revoke(key.name)
            await first.mint()
        async with gateway(api, bus=first.bus, **own) as again:
            standing = await again.client.standing(key.name)
            assert standing is not None
            assert (standing.live, standing.calls, standing.charged_micro_usd) == (True, 0, 0)


async def test_a_full_file_lets_no_call_through_and_no_turn_start_until_nats_has_it(tmp_path: Path) -> None:
    """The bridge's way to it is another connection, so that it can still be asked."""
    server = MemoryBus()
    asker = MemoryBus(server.server)
    await server.ensure(streams())
    own: dict[str, Any] = {"state_directory": str(tmp_path), "max_daybook_bytes": 4096}
    async with ModelApi() as api, gateway(api, bus=server, asker=asker, **own) as served:
        key = await served.mint()
        server.go_away()
        statuses = [await ask(served, key.value) for _ in range(8)]
        assert (statuses[0], statuses[-1]) == (200, 503)
        assert (tmp_path / FILE).stat().st_size < 4096 + 2048
        server.come_back()
        passed = statuses.count(200)
        events = await served.recorded(passed)
        assert len({event.call_id for event in events}) == passed
        async with asyncio.timeout(20):
            while await ask(served, key.value) != 200:
                await asyncio.sleep(0.05)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process grows beyond that: the kernel refuses, as it does where there is no room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_disk_that_takes_nothing_lets_no_call_through_and_says_so(tmp_path: Path) -> None:
    async with ModelApi() as api, gateway(api, state_directory=str(tmp_path)) as served:
        key = await served.mint()
        assert await ask(served, key.value) == 200
        await served.recorded(1)
        with full_disk((tmp_path / FILE).stat().st_size + 10):
            assert await ask(served, key.value) == 503
            with pytest.raises(Unavailable, match="cannot write down what calls use: no space left on device"):
                await served.client.enforce("acme")
            [reason] = [each for each in served.health.report().reasons if each.part == "daybook"]
            assert "no call is let through" in reason.text
            assert "sandreel_gateway_daybook_failures_total" in served.metrics.render()
        async with asyncio.timeout(20):  # it looks again by itself
            while any(each.part == "daybook" for each in served.health.report().reasons):
                await asyncio.sleep(0.05)
        assert await ask(served, key.value) == 200
        assert len(api.seen) == 2
        standing = await served.client.standing(key.name)
        assert standing is not None
        assert standing.calls == 2


async def test_an_end_that_the_disk_did_not_take_is_recorded_all_the_same(tmp_path: Path) -> None:
    async with (
        ModelApi(steps(Reply("hello", first_after_s=0.3))) as api,
        gateway(api, state_directory=str(tmp_path)) as served,
    ):
        key = await served.mint()
        task = asyncio.create_task(ask(served, key.value))
        async with asyncio.timeout(20):
            while not api.seen:
                await asyncio.sleep(0.01)
        with full_disk((tmp_path / FILE).stat().st_size + 10):
            assert await task == 200
            [event] = await served.recorded(1)
        assert event.complete
        last = await served.client.revoke(key.name)
        assert last is not None
        assert last.calls == 1


async def test_a_gateway_that_takes_the_keys_over_goes_on_from_the_file_of_the_first(tmp_path: Path) -> None:
    own: dict[str, Any] = {"state_directory": str(tmp_path)}
    async with ModelApi(steps(Reply("hello", tokens=Tokens(10, 0, 0, 20)))) as api, gateway(api, **own) as first:
        key = await first.mint()
        assert await ask(first, key.value) == 200
        async with gateway(api, bus=first.bus, **own) as second:
            assert first.task.done(), "they have one file, and one of them at a time"
            assert await ask(second, key.value) == 200
            last = await second.client.revoke(key.name)
            assert last is not None
            assert (last.calls, last.charged_micro_usd) == (2, 2 * COST)
        with pytest.raises(BaseExceptionGroup) as ended:
            first.task.result()
        assert ended.group_contains(Misconfigured, match="another gateway has taken the keys over")


async def opened_at(directory: Path, within_s: float = 0) -> Daybook:
    health = Health("gateway", version="t", pid=1, monotonic=lambda: 0.0)
    async with open_daybook(
        directory, max_bytes=1 << 20, health=health, measures=GatewayMeasures(Metrics()), within_s=within_s
    ) as daybook:
        return daybook


async def test_one_gateway_has_the_file_and_what_is_wrong_with_it_is_said_in_one_line(tmp_path: Path) -> None:
    async with ModelApi() as api, gateway(api, state_directory=str(tmp_path)):
        with pytest.raises(Misconfigured, match=r"another gateway has .*calls.jsonl open"):
            await opened_at(tmp_path)
    await opened_at(tmp_path)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(Misconfigured, match=r"state_directory: .*cannot be used: file exists"):
        await opened_at(file)
    (tmp_path / FILE).write_text("{}\n")
    with pytest.raises(Misconfigured, match="line 1 of"):
        await opened_at(tmp_path)
    async with ModelApi() as api:
        with pytest.raises(Misconfigured, match="state_directory is not set"):
            async with gateway(api, state_directory=None):
                pass
