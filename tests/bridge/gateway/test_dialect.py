"""What of a request passes, by its path and its body: what is judged is what the provider reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandreel_bridge.gateway.call import DEFAULT_MAX_OUTPUT, read_call
from sandreel_bridge.gateway.dialect import Route, route
from sandreel_bridge.gateway.passing import sent
from sandreel_core.errors import Malformed

MESSAGES = Route("anthropic", "messages", "/v1/messages")
CHAT = Route("openai", "chat", "/v1/chat/completions")
RESPONSES = Route("openai", "responses", "/v1/responses")
GEMINI = Route("gemini", "gemini", "/v1beta/models/m:generateContent", model="m")
ROUTES = pytest.mark.parametrize("way", [MESSAGES, CHAT, RESPONSES], ids=lambda way: way.api)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/anthropic/v1/messages?beta=true", "/v1/messages?beta=true"),
        ("/anthropic/v1/messages?beta=false&x", "/v1/messages"),
        ("/openai/v1/responses?api-version=1", "/v1/responses"),
        ("/gemini/v1beta/models/m:streamGenerateContent?alt=sse", "/v1beta/models/m:streamGenerateContent?alt=sse"),
        # What a reply holds and in which form, and whose key and account it is, are not the sandbox's to say.
        ("/gemini/v1beta/models/m:generateContent?fields=candidates", "/v1beta/models/m:generateContent"),
        ("/gemini/v1beta/models/m:generateContent?$fields=candidates&alt=json", "/v1beta/models/m:generateContent?alt=json"),
        ("/gemini/v1beta/models/m:generateContent?alt=proto&%24alt=media", "/v1beta/models/m:generateContent"),
        ("/gemini/v1beta/models/m:generateContent?%6bey=own&key=own", "/v1beta/models/m:generateContent"),
    ],
)  # fmt: skip
def test_of_a_query_passes_what_is_known(target: str, path: str) -> None:
    found = route("POST", target)
    assert found is not None
    assert found.path == path


def test_headers_that_choose_method_fields_or_account_are_left_out() -> None:
    given = {
        "X-Goog-FieldMask": "candidates",
        "X-HTTP-Method-Override": "GET",
        "X-Goog-User-Project": "p",
        "X-Method-Override": "GET",
        "X-Goog-Request-Reason": "r",
        "Connection": "anthropic-beta",
        "x-goog-api-client": "genai-js",
        "anthropic-beta": "b",
        "user-agent": "u",
    }
    names = {name.lower() for name, _ in sent(given.items(), "gemini", "k")}
    assert names == {"x-goog-api-client", "anthropic-beta", "user-agent", "accept-encoding", "x-goog-api-key"}


@ROUTES
def test_a_name_that_stands_twice_is_sent_as_it_was_judged(way: Route) -> None:
    """Who reads the first of two, and who reads the last, must not differ between the gateway and the provider."""
    body = b'{"model": "dear",\n "model": "cheap", "mod\\u0065l": "cheap", "stream": false, "x": [1e0, "\\u00e4 "]}'
    call = read_call(way, body)
    assert call.model == "cheap"
    pairs = json.loads(call.body, object_pairs_hook=list)
    assert pairs == [("model", "cheap"), ("stream", False), ("x", [1.0, "ä "])]


@ROUTES
@pytest.mark.parametrize("name", ["Model", "MODEL", "moDel", "\u017ftream"])
def test_a_name_that_some_servers_take_for_another_is_refused(way: Route, name: str) -> None:
    with pytest.raises(Malformed, match="is not the field's name"):
        read_call(way, json.dumps({"model": "cheap", name: "dear"}).encode())


@pytest.mark.parametrize(
    ("way", "more", "problem"),
    [
        (RESPONSES, {"service_tier": "priority"}, "service_tier"),
        (CHAT, {"service_tier": "flex"}, "service_tier"),
        (MESSAGES, {"speed": "fast"}, "speed"),
        (MESSAGES, {"inference_geo": "us"}, "inference_geo"),
        (GEMINI, {"serviceTier": "PRIORITY"}, "service_tier"),
        (GEMINI, {"service_tier": "flex"}, "service_tier"),
        (CHAT, {"models": ["dear"]}, "models"),
        (MESSAGES, {"fallbacks": [{"model": "dear"}]}, "fallbacks"),
        (RESPONSES, {"previous_response_id": "resp_1"}, "previous_response_id"),
        (RESPONSES, {"conversation": "c"}, "conversation"),
        (RESPONSES, {"prompt": {"id": "p"}}, "prompt"),
        (GEMINI, {"cachedContent": "cachedContents/1"}, "cachedContent"),
        (MESSAGES, {"mcp_servers": [{"url": "https://x"}]}, "mcp_servers"),
        (RESPONSES, {"tools": [{"type": "function", "name": "f"}, {"type": "mcp", "server_url": "x"}]}, "mcp"),
        (MESSAGES, {"tools": [{"type": "mcp_toolset"}]}, "mcp"),
        (RESPONSES, {"background": True}, "background"),
    ],
)
def test_what_has_another_price_or_is_not_the_keys_does_not_pass(
    way: Route, more: dict[str, Any], problem: str
) -> None:
    with pytest.raises(Malformed, match=problem):
        read_call(way, json.dumps({"model": "m"} | more).encode())


@pytest.mark.parametrize(
    ("way", "more"),
    [
        (RESPONSES, {"service_tier": "auto", "previous_response_id": None, "conversation": None, "store": False}),
        (CHAT, {"service_tier": "default", "tools": [{"type": "function", "function": {"name": "f"}}]}),
        (MESSAGES, {"service_tier": "standard_only", "speed": "standard", "tools": [{"name": "f"}]}),
        (MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "web_search"}], "tool_choice": None}),
        (GEMINI, {"serviceTier": "SERVICE_TIER_UNSPECIFIED", "tools": [{"functionDeclarations": []}]}),
    ],
)
def test_what_programs_send_passes(way: Route, more: dict[str, Any]) -> None:
    said = {"model": "m"} | more
    assert json.loads(read_call(way, json.dumps(said).encode()).body) == said


@pytest.mark.parametrize(
    ("way", "more", "most"),
    [
        (MESSAGES, {"max_tokens": 100, "max_output_tokens": 7}, 100),
        (MESSAGES, {}, DEFAULT_MAX_OUTPUT),
        (CHAT, {"max_tokens": 1, "max_completion_tokens": 900, "n": 2}, 1800),
        (RESPONSES, {"max_output_tokens": 50, "max_tokens": 1}, 50),
        (RESPONSES, {"max_output_tokens": -5}, DEFAULT_MAX_OUTPUT),
        (GEMINI, {"generationConfig": {"maxOutputTokens": 10, "candidateCount": 3}}, 30),
        (GEMINI, {"generation_config": {"max_output_tokens": 10, "candidate_count": 3}}, 30),
        (GEMINI, {"generationConfig": {"maxOutputTokens": -1}}, DEFAULT_MAX_OUTPUT),
    ],
)
def test_what_is_reserved_is_what_the_provider_reads_as_the_limit(way: Route, more: dict[str, Any], most: int) -> None:
    assert read_call(way, json.dumps({"model": "m"} | more).encode()).most_output == most


@pytest.mark.parametrize(
    ("way", "said", "count"),
    [
        (MESSAGES, '{"type": "image", "source": {"type" : "url", "url": "https://x/i.png"}}', 1),
        (MESSAGES, '{"type": "document", "source": {"type": "file", "file_id":\n"file_1"}}', 1),
        (CHAT, '{"type": "image_url", "image_url": {"url": "https://x/i.png"}}', 1),
        (CHAT, '{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}', 0),
        (RESPONSES, '{"type": "input_image", "image_url": "https://x/i.png"}, {"type": "input_file", "file_url": "u"}', 2),
        (GEMINI, '{"fileData": {"fileUri": "gs://x"}}, {"file_data": {"file_uri": "gs://y"}}', 2),
        (MESSAGES, '{"type": "text", "text": "say \\"type\\": \\"url\\" and \\"file_id\\": \\"x\\""}', 0),
        (MESSAGES, '{"type": "tool_use", "input": {"url": "https://x"}}', 0),
    ],
)  # fmt: skip
def test_what_the_provider_gets_by_itself_is_reserved_too(way: Route, said: str, count: int) -> None:
    """Its address is short: many such calls at once would hold next to nothing, and cost a budget many times over."""
    body = f'{{"model": "m", "messages": [{{"role": "user", "content": [{said}]}}]}}'.encode()
    call = read_call(way, body)
    assert call.least_input == count * 150_000 + len(call.body) // 4
    assert call.most_input == count * 150_000 + len(call.body) // 2


_NAMES = st.sampled_from(
    ["model", "Model", "stream", "stream_options", "tools", "generationConfig", "service_tier", "n", "x"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(_NAMES | st.text(max_size=4), each, max_size=4),
    max_leaves=12,
)


@given(
    way=st.sampled_from([MESSAGES, CHAT, RESPONSES, GEMINI]),
    body=st.binary(max_size=60) | st.dictionaries(_NAMES, _JSON).map(lambda said: json.dumps(said).encode()),
)
def test_any_body_is_read_or_refused(way: Route, body: bytes) -> None:
    try:
        call = read_call(way, body)
    except Malformed:
        return
    assert call.most_output > 0
    assert read_call(way, call.body) == call  # what the provider reads is judged the same
