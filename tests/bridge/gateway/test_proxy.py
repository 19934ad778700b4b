"""The built-in gateway as a sandbox meets it: what passes, what is refused, what is counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from sandreel_bridge.gateway.port import key_name
from sandreel_core.errors import Refused
from tests.support.gateway import PROVIDER_KEY, Gateway, gateway
from tests.support.http import call, opened
from tests.support.model_api import Failure, ModelApi, Reply, Tokens, steps

TOKENS = Tokens(input=1000, cache_read=2000, cache_creation=100, output=50, reasoning=10)
# claude-sonnet-4-5 at 3, 15, 0.3 and 3.75 USD a million.
COST = 1000 * 3 + 50 * 15 + 2000 * 3 // 10 + 375


def messages(model: str = "claude-sonnet-4-5", *, stream: bool = True, **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": "hello"}]
    return {"model": model, "max_tokens": 100, "stream": stream, "messages": said, **more}


FORMS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "anthropic": ("/anthropic/v1/messages?beta=true", "x-api-key", messages(), "claude-sonnet-4-5"),
    "chat": ("/openai/v1/chat/completions", "authorization", messages("gpt-5.2"), "gpt-5.2"),
    "responses": (
        "/openai/v1/responses",
        "authorization",
        {"model": "gpt-5.2", "stream": True, "input": "hello"},
        "gpt-5.2",
    ),
    "gemini": (
        "/genai/v1beta/models/gemini-3-flash-preview:streamGenerateContent?alt=sse",
        "x-goog-api-key",
        {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]},
        "gemini-3-flash-preview",
    ),
}


def credential(header: str, value: str) -> dict[str, str]:
    return {header: f"Bearer {value}" if header == "authorization" else value}


@asynccontextmanager
async def half_sent(
    url: str, key: str, length: int
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter], None]:
    """The head of a request that the gateway has read: it asks for the body, which has still to come."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        head = f"POST /anthropic/v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-length: {length}\r\n"
        writer.write(f"{head}expect: 100-continue\r\n\r\n".encode())
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
        yield reader, writer
    finally:
        writer.close()


async def opens(served: Gateway, calls: int) -> None:
    """Returns when so many calls are under way or wait."""
    async with asyncio.timeout(20):
        while f"sandreel_gateway_calls_open {calls}\n" not in served.metrics.render():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("form", FORMS)
async def test_a_stream_passes_byte_for_byte_and_its_usage_is_recorded(form: str) -> None:
    path, header, body, model = FORMS[form]
    async with ModelApi(steps(Reply("Hällo over there", tokens=TOKENS))) as api, gateway(api) as served:
        key = await served.mint()
        through = await call(served.url + path, headers=credential(header, key.value), body=body)
        told = api.seen[0]
        direct = await call(f"{api.url}{told.path}", body=told.body)
        [event] = await served.recorded(1)
        standing = await served.client.standing(key.name)
    assert through.complete
    # The stand-in numbers its replies: all else is the same.
    assert through.body.replace(b"standin00001", b"standin00002") == direct.body
    assert through.headers["content-type"] == direct.headers["content-type"]
    sent = {
        told.headers.get(name, "").removeprefix("Bearer ") for name in ("authorization", "x-api-key", "x-goog-api-key")
    }
    assert sent == {"", PROVIDER_KEY}
    assert (event.model, event.turn, event.user, event.key, event.complete) == (model, "t1", "ada", key.name, True)
    assert (event.usage.input_tokens, event.usage.output_tokens) == (3100, 50)
    assert event.usage.cache_read_input_tokens == 2000
    assert event.usage.cost_micro_usd
    assert event.prices
    if form == "anthropic":
        assert event.usage.cost_micro_usd == COST
    assert standing is not None
    assert (standing.calls, standing.usage) == (1, event.usage)


async def test_a_reply_in_one_piece_is_counted_too() -> None:
    async with ModelApi(steps(Reply("hello", tokens=TOKENS))) as api, gateway(api) as served:
        key = await served.mint()
        answer = await call(f"{served.url}/anthropic/v1/messages", headers={"authorization": f"Bearer {key.value}"}, body=messages(stream=False))  # fmt: skip
        [event] = await served.recorded(1)
    assert answer.json["content"][0]["text"] == "hello"
    assert event.usage.cost_micro_usd == COST


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/anthropic/v1/messages", "authentication_error"),
        ("/openai/v1/responses", "invalid_request_error"),
        ("/gemini/v1beta/models/m:generateContent", None),
        ("/nowhere", "authentication_error"),
    ],
)
async def test_who_has_no_key_is_told_so_in_the_apis_own_form(path: str, kind: str | None) -> None:
    async with ModelApi() as api, gateway(api) as served:
        for headers in ({}, {"x-api-key": "srvk_guessed"}, {"authorization": "Bearer srvk_a", "x-api-key": "srvk_b"}):
            answer = await call(served.url + path, headers=headers, body=messages())
            assert answer.status == 401
            error = answer.json["error"]
            assert error["status"] == "UNAUTHENTICATED" if kind is None else error["type"] == kind
    assert api.seen == []


async def test_what_is_no_request_is_counted_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Anybody who reaches the port can send it, as often as he likes, and a key may stand in it."""
    head = b"POST /anthropic/v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\n"
    async with ModelApi() as api, gateway(api) as served:
        port = urlsplit(served.url).port
        for sent, status in (
            (head % b"srvk_canary" + b"no header srvk_canary\r\n\r\n", b"400"),
            (head % b"srvk_canary" + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
            (head % b"srvk_canary" + b"x-a: " + b"a" * 20_000 + b"\r\n\r\n", b"400"),
            (head % b"srvk_\xff\xfe" + b"content-length: 0\r\n\r\n", b"401"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            assert (await reader.readline()).split()[1] == status
            writer.close()
            await writer.wait_closed()
        measured = served.metrics.render()
    assert 'sandreel_gateway_refused_total{status="400"} 3\n' in measured
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")]
    assert "canary" not in caplog.text
    assert api.seen == []


async def test_only_known_paths_and_the_keys_own_models_pass() -> None:
    async with ModelApi() as api, gateway(api) as served:
        key = await served.mint(models=("claude-sonnet-4-5",))
        headers = {"x-api-key": key.value}
        for path in (
            "/anthropic/v1/messages/batches",
            "/anthropic/v1/files",
            "/openai/v1/embeddings",
            "/anthropic/v1/../v1/messages",
        ):
            assert (await call(served.url + path, headers=headers, body=messages())).status == 404
        other = await call(f"{served.url}/anthropic/v1/messages", headers=headers, body=messages("claude-opus-4-5"))
        assert (other.status, other.json["error"]["type"]) == (403, "permission_error")
        background = {"model": "claude-sonnet-4-5", "input": "x", "background": True}
        assert (await call(f"{served.url}/openai/v1/responses", headers=headers, body=background)).status == 400
        assert (await call(f"{served.url}/anthropic/v1/messages", headers=headers, body=b"{")).status == 400
        listed = await call(f"{served.url}/anthropic/v1/models", method="GET", headers=headers)
        assert [row["id"] for row in listed.json["data"]] == ["claude-sonnet-4-5"]
        assert api.seen == []
        count = await call(f"{served.url}/anthropic/v1/messages/count_tokens", headers=headers, body=messages())
        assert count.json == {"input_tokens": 1234}


async def test_a_spent_budget_is_402_also_for_calls_at_once() -> None:
    """Each costs half of it: of six at once two pass, and the rest is refused once these are settled."""
    async with (
        ModelApi(steps(Reply("hello", tokens=Tokens(0, 0, 0, output=100), first_after_s=0.1))) as api,
        gateway(api) as served,
    ):
        key = await served.mint(budget_micro_usd=3000)
        url, headers = f"{served.url}/anthropic/v1/messages", {"x-api-key": key.value}
        answers = await asyncio.gather(*(call(url, headers=headers, body=messages(stream=False)) for _ in range(6)))
        standing = await served.client.standing(key.name)
        again = await call(url, headers=headers, body=messages(stream=False))
    assert sorted(answer.status for answer in answers) == [200, 200, 402, 402, 402, 402]
    assert len(api.seen) == 2
    assert standing is not None
    assert standing.charged_micro_usd == 3000
    assert (again.status, again.json["error"]["type"]) == (402, "billing_error")


async def test_what_others_hold_is_waited_for_and_not_refused_as_spent() -> None:
    cheap = Reply("hello", tokens=Tokens(0, 0, 0, output=1), first_after_s=0.1)
    async with ModelApi(steps(cheap)) as api, gateway(api) as served:
        key = await served.mint(budget_micro_usd=2000)
        url, headers = f"{served.url}/anthropic/v1/messages", {"x-api-key": key.value}
        answers = await asyncio.gather(*(call(url, headers=headers, body=messages(stream=False)) for _ in range(4)))
    assert [answer.status for answer in answers] == [200] * 4


async def test_a_revoked_key_and_one_that_was_replaced_are_401() -> None:
    async with ModelApi() as api, gateway(api) as served:
        old = await served.mint()
        new = await served.mint()
        url = f"{served.url}/anthropic/v1/messages"
        assert (await call(url, headers={"x-api-key": old.value}, body=messages())).status == 401
        assert (await call(url, headers={"x-api-key": new.value}, body=messages())).status == 200
        last = await served.client.revoke(new.name)
        assert last is not None
        assert (last.live, last.calls) == (False, 1)
        assert await served.client.revoke(new.name) == last
        assert (await call(url, headers={"x-api-key": new.value}, body=messages())).status == 401
        assert await served.client.live() == []


@pytest.mark.parametrize("status", [402, 429, 500, 529])
async def test_a_providers_error_passes_through(status: int) -> None:
    secret = (("set-cookie", "session=1"), ("anthropic-organization-id", "org-1"), ("retry-after", "7"))
    async with ModelApi(steps(Failure(status, f"no: {PROVIDER_KEY}", secret))) as api, gateway(api) as served:
        key = await served.mint()
        answer = await call(f"{served.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=messages())
        [event] = await served.recorded(1)
    assert (answer.status, answer.headers["retry-after"]) == (status, "7")
    assert answer.json["error"]["message"] == "no: [key]"
    assert not {"set-cookie", "anthropic-organization-id"} & answer.headers.keys()
    assert (event.http_status, event.usage.cost_micro_usd) == (status, 0)


async def test_a_provider_that_refuses_the_gateways_key_says_nothing_of_it() -> None:
    async with ModelApi(steps(Failure(401, f"bad key {PROVIDER_KEY[:8]}"))) as api, gateway(api) as served:
        key = await served.mint()
        answer = await call(f"{served.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=messages())
    assert answer.status == 401
    assert PROVIDER_KEY[:8] not in answer.body.decode()


async def test_a_cut_stream_is_cut_for_the_sandbox_and_charged_what_came() -> None:
    async with ModelApi(steps(Reply("one two three four", tokens=TOKENS, cut_after=6))) as api, gateway(api) as served:
        key = await served.mint()
        answer = await call(f"{served.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=messages())
        [event] = await served.recorded(1)
    assert answer.status == 200
    assert not answer.complete
    assert not event.complete
    assert event.usage.input_tokens == 3100
    # The provider had told one token, and six pieces had come.
    assert event.usage.output_tokens == 1
    assert event.charged_micro_usd is not None
    assert event.usage.cost_micro_usd is not None
    assert event.charged_micro_usd - event.usage.cost_micro_usd == 5 * 15


async def test_a_hanging_provider_is_given_up_and_a_sandbox_that_leaves_ends_the_call() -> None:
    async with ModelApi(steps(Reply("one two three", hang_after=3))) as api:
        async with gateway(api, idle_timeout_s=0.3) as served:
            key = await served.mint()
            url = f"{served.url}/anthropic/v1/messages"
            answer = await call(url, headers={"x-api-key": key.value}, body=messages())
            assert not answer.complete
            api.script = steps(Reply("one", hang_after=0))
            assert (await call(url, headers={"x-api-key": key.value}, body=messages())).status == 504
            assert [event.complete for event in await served.recorded(2)] == [False, False]
        async with gateway(api, bus=served.bus) as served:
            api.script = steps(Reply("one two three", hang_after=3))
            key = await served.mint("t2")
            async with opened(
                f"{served.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=messages()
            ) as left:
                await anext(left.pieces())
            last = await served.client.revoke(key.name)
            assert last is not None
            assert (last.calls, last.usage.input_tokens) == (1, 420)


async def test_revoking_cuts_what_is_still_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandreel_bridge.gateway.desk.QUIET_S", 0.1)
    async with ModelApi(steps(Reply("one two three", hang_after=3))) as api, gateway(api) as served:
        key = await served.mint()
        async with opened(
            f"{served.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=messages()
        ) as open:
            pieces = open.pieces()
            await anext(pieces)
            last = await served.client.revoke(key.name)
            async for _ in pieces:
                pass
            assert not open.complete
        assert last is not None
        assert last.calls == 1


async def test_calls_are_recorded_together_and_at_once_when_somebody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandreel_bridge.gateway.recorder._GATHERED_S", 300)
    async with ModelApi(steps(*[Reply("hello", tokens=TOKENS)] * 3)) as api, gateway(api) as served:
        key = await served.mint()
        for _ in range(3):
            await call(
                f"{served.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=messages(stream=False)
            )
        assert "sandreel_gateway_usage_unrecorded 3\n" in served.metrics.render()
        last = await served.client.revoke(key.name)
        assert last is not None
        assert last.calls == len(await served.recorded(3)) == 3


async def test_a_request_that_was_half_sent_when_its_key_ended_does_not_pass() -> None:
    """Who has shown the key with the head of a request has not yet made a call: the body may come when the turn is over."""
    async with ModelApi() as api, gateway(api) as served:
        key = await served.mint()
        body = json.dumps(messages()).encode()
        async with half_sent(served.url, key.value, len(body)) as (reader, writer):
            last = await served.client.revoke(key.name)
            writer.write(body)
            assert (await reader.readline()).split()[1] == b"401"
        other = await served.mint()
        async with half_sent(served.url, other.value, len(body)) as (reader, writer):
            await served.mint()  # replaces it
            writer.write(body)
            assert (await reader.readline()).split()[1] == b"401"
    assert last is not None
    assert (last.live, last.calls) == (False, 0)
    assert api.seen == []


async def test_one_key_cannot_take_all_calls_nor_all_memory_nor_all_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ModelApi(steps(Reply("one two", hang_after=2))) as api, gateway(api, max_calls_per_key=2) as served:
        mine, other = await served.mint("t1"), await served.mint("t2")
        url = f"{served.url}/anthropic/v1/messages"
        async with AsyncExitStack() as open_calls:
            for _ in range(2):
                answer = opened(url, headers={"x-api-key": mine.value}, body=messages())
                await anext((await open_calls.enter_async_context(answer)).pieces())
            for path in ("", "/count_tokens"):
                refused = await call(url + path, headers={"x-api-key": mine.value}, body=messages())
                assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            count = await call(f"{url}/count_tokens", headers={"x-api-key": other.value}, body=messages())
            assert count.status == 200
    async with ModelApi() as api, gateway(api, max_bodies_bytes=4000) as served:
        mine, other = await served.mint("t1"), await served.mint("t2")
        url, headers = f"{served.url}/anthropic/v1/messages", {"x-api-key": other.value}
        async with half_sent(served.url, mine.value, 3900):
            assert (await call(url, headers=headers, body=messages())).status == 503
        await opens(served, 0)
        assert (await call(url, headers=headers, body=messages())).status == 200
        monkeypatch.setattr("sandreel_bridge.gateway.proxy._BODY_WITHIN_S", 0.1)
        async with half_sent(served.url, mine.value, 3900) as (reader, _):
            assert (await reader.readline()).split()[1] == b"408"
    assert len(api.seen) == 1


async def test_a_call_that_waits_for_the_budget_does_not_outlive_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandreel_bridge.gateway.desk.QUIET_S", 0.1)
    async with ModelApi(steps(Reply("one two three", hang_after=3))) as api, gateway(api) as served:
        key = await served.mint(budget_micro_usd=2000)
        url, headers = f"{served.url}/anthropic/v1/messages", {"x-api-key": key.value}
        async with opened(url, headers=headers, body=messages()) as first:
            await anext(first.pieces())
            waiting = [asyncio.create_task(call(url, headers=headers, body=messages())) for _ in range(3)]
            await opens(served, 4)
            last = await served.client.revoke(key.name)
            answers = await asyncio.gather(*waiting)
    assert [answer.status for answer in answers] == [401] * 3
    assert len(api.seen) == 1
    assert last is not None
    assert last.calls == 1


async def test_a_chat_stream_is_asked_for_its_usage() -> None:
    async with ModelApi() as api, gateway(api) as served:
        key = await served.mint()
        await call(f"{served.url}/openai/v1/chat/completions", headers={"authorization": f"Bearer {key.value}"}, body=messages("gpt-5.2"))  # fmt: skip
    assert json.loads(api.seen[0].body)["stream_options"] == {"include_usage": True}


async def test_models_without_a_price_are_refused_unless_allowed_and_then_have_no_cost() -> None:
    async with ModelApi() as api:
        async with gateway(api, models=("claude-sonnet-4-5", "own-model")) as served:
            with pytest.raises(Refused, match="own-model has no known price"):
                await served.client.enforce("acme")
        async with gateway(api, models=("own-model",), unpriced="allow") as served:
            assert await served.client.enforce("acme") == ("own-model",)
            key = await served.mint(models=("own-model",))
            await call(
                f"{served.url}/anthropic/v1/messages", headers={"x-api-key": key.value}, body=messages("own-model")
            )
            [event] = await served.recorded(1)
    assert event.usage.cost_micro_usd is None
    assert event.usage.input_tokens == 420


async def test_keys_are_refused_that_the_org_may_not_have() -> None:
    async with ModelApi() as api, gateway(api, models=("claude-sonnet-4-5",), anthropic_api_key=None) as served:
        with pytest.raises(Refused, match="NO_PROVIDER"):
            await served.client.enforce("acme")
    async with ModelApi() as api, gateway(api) as served:
        with pytest.raises(Refused, match="MODEL_NOT_ALLOWED"):
            await served.mint(models=("nobodys",))
        assert await served.client.standing(key_name("acme", "s1", 1, "t1", 1)) is None
