"""What a reply tells of its usage is the same in whatever pieces it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandreel_bridge.gateway import tap as tapping
from sandreel_bridge.gateway.dialect import Api
from sandreel_bridge.gateway.tap import Tap
from sandreel_bridge.gateway.tokens import Tokens
from tests.support.model_api import Reply, Shell, Think, anthropic, gemini, openai
from tests.support.model_api import Tokens as Told
from tests.support.model_api.asked import Asked, Dialect, Item
from tests.support.model_api.dialect import Api as StandIn

APIS: dict[Api, tuple[StandIn, Dialect]] = {
    "messages": (anthropic.API, "anthropic"),
    "chat": (openai.CHAT, "chat"),
    "responses": (openai.RESPONSES, "responses"),
    "gemini": (gemini.API, "gemini"),
}
counts = st.integers(0, 10**9)
told = st.builds(Told, counts, counts, counts, st.integers(5, 10**9), st.just(5))
blocks = st.lists(
    st.one_of(st.text(min_size=1), st.builds(Think, st.text(min_size=1)), st.builds(Shell, st.text())),
    min_size=1,
    max_size=4,
)


def asked(dialect: Dialect) -> Asked:
    return Asked(dialect, "m-1", True, (Item("user", "hi"),), ("Bash",), "/w")


def pieces(body: bytes, cuts: list[int]) -> Iterator[bytes]:
    at = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return (body[start:end] for start, end in pairwise(at))


def expected(api: Api, tokens: Told) -> Tokens:
    if api == "messages":
        return Tokens(tokens.input, tokens.output, tokens.cache_read, tokens.cache_creation)
    # The others do not tell what was written into a cache: it is input.
    return Tokens(tokens.input + tokens.cache_creation, tokens.output, tokens.cache_read)


@pytest.mark.parametrize("api", APIS)
@settings(max_examples=60, deadline=None)
@given(said=blocks, tokens=told, cuts=st.lists(st.integers(0, 1 << 20), max_size=30), crlf=st.booleans())
def test_a_stream_in_any_pieces(
    api: Api, said: list[str | Think | Shell], tokens: Told, cuts: list[int], crlf: bool
) -> None:
    standin, dialect = APIS[api]
    body = b"".join(standin.events(Reply(*said, tokens=tokens), asked(dialect), "x"))
    tap = Tap(api, streams=True)
    for piece in pieces(body.replace(b"\n", b"\r\n") if crlf else body, cuts):
        tap.feed(piece)
    tap.end()
    assert (tap.told.tokens, tap.told.ended, tap.told.model) == (expected(api, tokens), True, "m-1")


@pytest.mark.parametrize("api", APIS)
@settings(max_examples=30, deadline=None)
@given(said=blocks, tokens=told, cuts=st.lists(st.integers(0, 1 << 20), max_size=10))
def test_a_reply_in_one_piece_in_any_pieces(
    api: Api, said: list[str | Think | Shell], tokens: Told, cuts: list[int]
) -> None:
    standin, dialect = APIS[api]
    tap = Tap(api, streams=False)
    for piece in pieces(json.dumps(standin.whole(Reply(*said, tokens=tokens), asked(dialect), "x")).encode(), cuts):
        tap.feed(piece)
    tap.end()
    assert (tap.told.tokens, tap.told.ended) == (expected(api, tokens), True)


@pytest.mark.parametrize("api", APIS)
@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=400), cuts=st.lists(st.integers(0, 1 << 20), max_size=10), streams=st.booleans())
def test_garbage_is_nothing_that_was_told(api: Api, body: bytes, cuts: list[int], streams: bool) -> None:
    tap = Tap(api, streams=streams)
    for piece in pieces(b'data: {"usage": ' + body + b"\n", cuts):
        tap.feed(piece)
    tap.end()
    assert tap.told.tokens is None or isinstance(tap.told.tokens, Tokens)


@pytest.mark.parametrize("api", APIS)
def test_a_stream_that_is_cut_has_not_ended(api: Api) -> None:
    standin, dialect = APIS[api]
    events = list(standin.events(Reply("one two three"), asked(dialect), "x"))
    tap = Tap(api, streams=True)
    tap.feed(b"".join(events[:2]))
    tap.end()
    assert (tap.told.ended, tap.pieces) == (False, 2)


def test_an_hour_in_the_cache_is_counted_by_itself() -> None:
    usage = {
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_1h_input_tokens": 20},
    }
    tap = Tap("messages", streams=False)
    tap.feed(json.dumps({"type": "message", "model": "m", "usage": usage}).encode())
    tap.end()
    assert tap.told.tokens == Tokens(input=1, output=2, cache_write=10, cache_write_1h=20)


def test_a_line_that_is_too_long_is_not_kept_and_the_next_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tapping, "MAX_KEPT_BYTES", 100)
    tap = Tap("messages", streams=True)
    for _ in range(10):
        tap.feed(b"data: " + b"x" * 50)
    tap.feed(b'data: {"usage": {"input_tokens": 9}}\n')  # still of the long line
    assert tap.told.tokens is None
    tap.feed(b'data: {"usage": {"input_tokens": 5}}\n')
    assert tap.told.tokens == Tokens(input=5)


def test_a_negative_count_is_none() -> None:
    tap = Tap("messages", streams=True)
    tap.feed(b'data: {"usage": {"input_tokens": -5}}\n')
    assert tap.told.tokens is None


@pytest.mark.parametrize(
    ("api", "said", "standard"),
    [
        ("messages", {"usage": {"input_tokens": 1, "service_tier": "standard", "speed": None}}, True),
        ("messages", {"usage": {"input_tokens": 1, "service_tier": "priority"}}, False),
        ("messages", {"usage": {"input_tokens": 1, "speed": "fast"}}, False),
        ("messages", {"usage": {"input_tokens": 1, "inference_geo": "us"}}, False),
        ("messages", {"usage": {"input_tokens": 1, "server_tool_use": {"web_search_requests": 2}}}, True),
        ("messages", {"usage": {"input_tokens": 1, "server_tool_use": {"web_search_requests": "2"}}}, False),
        ("messages", {"usage": {"input_tokens": 1, "server_tool_use": {"web_search_requests": -2}}}, False),
        ("messages", {"usage": {"input_tokens": 1, "server_tool_use": {"web_search_requests": 0}}}, True),
        ("messages", {"usage": {"input_tokens": 1, "server_tool_use": {"web_fetch_requests": 3}}}, True),
        ("messages", {"usage": {"input_tokens": 1, "server_tool_use": {"code_execution_requests": 1}}}, False),
        ("chat", {"usage": {"prompt_tokens": 1}, "service_tier": "default"}, True),
        ("chat", {"usage": {"prompt_tokens": 1}, "service_tier": "priority"}, False),
        ("responses", {"usage": {"input_tokens": 1}, "output": [{"type": "message"}, {"type": "function_call"}]}, True),
        ("responses", {"usage": {"input_tokens": 1}, "output": [{"type": "web_search_call"}]}, True),
        ("responses", {"usage": {"input_tokens": 1}, "output": [{"type": "file_search_call"}]}, False),
        ("responses", {"usage": {"input_tokens": 1}, "service_tier": "flex", "output": None}, False),
        ("gemini", {"usageMetadata": {"promptTokenCount": 1}, "candidates": [{"groundingMetadata": {}}]}, True),
        ("gemini", {"usageMetadata": {"promptTokenCount": 1}, "candidates": [{"groundingMetadata": {"x": 1}}]}, False),
        ("gemini", {"usageMetadata": {"promptTokenCount": 1, "serviceTier": "priority"}}, False),
    ],
)
def test_what_costs_more_than_its_tokens_is_told_apart(api: Api, said: dict[str, Any], standard: bool) -> None:
    whole = Tap(api, streams=False)
    whole.feed(json.dumps(said).encode())
    whole.end()
    stream = Tap(api, streams=True)
    for each in ({"type": "response.completed", "response": said} if api == "responses" else said, said):
        stream.feed(f"data: {json.dumps(each)}\n\n".encode())
    stream.end()
    for tap in (whole, stream):
        assert tap.told.tokens is not None
        assert tap.told.standard is standard


@pytest.mark.parametrize(
    ("api", "said", "searches"),
    [
        ("messages", {"usage": {"input_tokens": 1, "server_tool_use": {"web_search_requests": 2}}}, 2),
        ("messages", {"usage": {"input_tokens": 1, "server_tool_use": {"web_fetch_requests": 2}}}, 0),
        (
            "responses",
            {
                "usage": {"input_tokens": 1},
                "output": [
                    {"type": "web_search_call", "action": {"type": "search", "query": "x"}},
                    {"type": "web_search_call", "action": {"type": "open_page", "url": "x"}},
                    {"type": "web_search_call", "action": {"type": "find_in_page"}},
                    {"type": "web_search_call", "action": None},
                    {"type": "message"},
                    None,
                ],
            },
            2,
        ),
    ],
)
def test_searches_that_a_provider_has_run_are_counted(api: Api, said: dict[str, Any], searches: int) -> None:
    whole = Tap(api, streams=False)
    whole.feed(json.dumps(said).encode())
    whole.end()
    assert whole.told.tokens == Tokens(input=1, searches=searches)
    stream = Tap(api, streams=True)
    first = {"type": "message_start", "message": {"usage": {"input_tokens": 1}}}
    last = {"type": "response.completed", "response": said} if api == "responses" else {"type": "message_delta"} | said
    for each in (
        (first, last, {"type": "message_delta", "usage": {"output_tokens": 7}}) if api == "messages" else (last,)
    ):
        stream.feed(f"data: {json.dumps(each)}\n\n".encode())
    assert stream.told.tokens is not None
    assert stream.told.tokens.searches == searches


def test_a_cut_stream_is_counted_by_what_its_pieces_hold() -> None:
    """Anthropic's have as many tokens as it likes in each."""
    api, dialect = APIS["messages"]
    words = "word " * 2000
    for said, least, most in ((Reply(words), 2000, 2500), (Reply("a b c"), 3, 8)):
        events = list(api.events(said, asked(dialect), "x"))
        tap = Tap("messages", streams=True)
        tap.feed(b"".join(events[:-2]))
        tap.end()
        assert least <= tap.least_output <= most
    joined = Tap("messages", streams=True)
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": words}}
    for _ in range(2):
        joined.feed(b"event: content_block_delta\n" + f"data: {json.dumps(delta)}\n\n".encode())
    assert 2 * len(words) // 4 - 300 <= joined.least_output <= 2 * len(words) // 4


@pytest.mark.parametrize("api", APIS)
def test_how_much_came_of_a_reply_that_told_nothing(api: Api) -> None:
    body = b'{"x": "' + b"y" * 4000
    cut = Tap(api, streams=False)
    cut.feed(body[:2000])
    cut.feed(body[2000:])
    cut.end()
    assert (cut.told.tokens, cut.least_output) == (None, 1001)
    stream = Tap(api, streams=True)
    for _ in range(3):
        stream.feed(b"data: " + body + b"\n\n")
    assert stream.least_output == 3 if api != "messages" else 3 * 4000 // 4 - 300 < stream.least_output <= 3000
    stream.end(in_order=True)  # that was all, and no usage in it: it was not in the API's own form
    assert stream.least_output == 3 * (len(body) + 8) // 4


def test_geminis_other_stream_is_a_list() -> None:
    parts = [
        {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": count}, "modelVersion": "g"}
        for count in (1, 7)
    ]
    tap = Tap("gemini", streams=False)
    tap.feed(json.dumps(parts).encode())
    tap.end()
    assert (tap.told.tokens, tap.told.ended) == (Tokens(input=5, output=7), True)
