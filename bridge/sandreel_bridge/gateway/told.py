"""What a reply says of its usage, in the words of each API. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from msgspec import Struct

from sandreel_bridge.gateway.dialect import Api
from sandreel_bridge.gateway.tokens import Tokens
from sandreel_core.contract.message import Count

# What the price table's prices are for. Another tier, speed or place costs something else.
_STANDARD = frozenset({"default", "auto", "standard", "global", "not_available"})
# What OpenAI's servers do for a reply beside writing it, and charge for; of a search what it found is opened and read for nothing.
_RUN_THERE = frozenset({"file_search_call", "code_interpreter_call", "image_generation_call"})
_SEARCHED = "web_search_call"
# Anthropic's reading of a page costs its tokens alone, and searches are counted.
_PRICED_THERE = frozenset({"web_fetch_requests", "web_search_requests"})


class _CacheCreation(Struct):
    ephemeral_1h_input_tokens: Count = 0


class _InputDetails(Struct):
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None


class _Usage(Struct):
    """Of Anthropic and of both of OpenAI's APIs."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_creation: _CacheCreation | None = None
    input_tokens_details: _InputDetails | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: _InputDetails | None = None
    service_tier: Any = None
    speed: Any = None
    inference_geo: Any = None
    server_tool_use: Any = None


class _Inner(Struct):
    """`message` of Anthropic's first event, `response` of OpenAI's last one."""

    model: str | None = None
    usage: _Usage | None = None
    service_tier: Any = None
    output: Any = None


class _Metadata(Struct, rename="camel"):
    prompt_token_count: Count = 0
    cached_content_token_count: Count = 0
    tool_use_prompt_token_count: Count = 0
    candidates_token_count: Count = 0
    thoughts_token_count: Count = 0
    service_tier: Any = None


class _Candidate(Struct, rename="camel"):
    finish_reason: str | None = None
    grounding_metadata: Any = None


class _AnthropicSaid(Struct):
    type: str | None = None
    model: str | None = None
    usage: _Usage | None = None
    message: _Inner | None = None


class _OpenAiSaid(_Inner):
    type: str | None = None
    response: _Inner | None = None


class _GeminiSaid(Struct, rename="camel"):
    usage_metadata: _Metadata | None = None
    model_version: str | None = None
    candidates: list[_Candidate] | None = None


_anthropic = msgspec.json.Decoder(_AnthropicSaid).decode
_openai = msgspec.json.Decoder(_OpenAiSaid).decode
_gemini = msgspec.json.Decoder(_GeminiSaid).decode
_gemini_list = msgspec.json.Decoder(list[_GeminiSaid]).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Told:
    """By one reply. `tokens`: so far, None for nothing; `model`: that answered, by its own word.

    ended     its last event was there: without it a stream was cut
    standard  what it told is all that it costs, at the prices of the table; not so where the provider ran tools of its own
              (search), or served it in another tier
    """

    def __init__(self, api: Api) -> None:
        self.tokens: Tokens | None = None
        self.model: str | None = None
        self.ended = False
        self.standard = True
        self._api = api

    def line(self, said: bytes) -> None:
        """What stands behind `data:` in a line of a stream."""
        if said == b"[DONE]":
            self.ended = True
            return
        try:
            if self._api == "gemini":
                self._of_gemini(_gemini(said))
            elif self._api == "messages":
                self._of_anthropic(_anthropic(said))
            else:
                self._of_openai(_openai(said))
        except _UNREADABLE:
            return

    def whole(self, body: bytes) -> None:
        """Of a reply in one piece."""
        try:
            if self._api == "gemini":
                for each in _gemini_list(body) if body.lstrip()[:1] == b"[" else [_gemini(body)]:
                    self._of_gemini(each)
            elif self._api == "messages":
                self._of_anthropic(_anthropic(body))
            else:
                self._of_openai(_openai(body))
        except _UNREADABLE:
            return
        self.ended = self.tokens is not None

    def _of_anthropic(self, said: _AnthropicSaid) -> None:
        if said.type == "message_stop":
            self.ended = True
        inner = said.message
        self.model = (inner.model if inner else said.model) or self.model
        for usage in (said.usage, inner.usage if inner else None):
            if usage is not None:
                self.tokens = _anthropic_tokens(usage, self.tokens or Tokens())
                self._served(usage.service_tier, usage.speed, usage.inference_geo)
                ran = usage.server_tool_use if isinstance(usage.server_tool_use, dict) else {}
                self.standard &= not any(count for name, count in ran.items() if name not in _PRICED_THERE)
                self._searched(ran.get("web_search_requests"))

    def _of_openai(self, said: _OpenAiSaid) -> None:
        if said.type is not None and said.type.startswith("response."):
            self.ended = True
        inner = said.response or said
        self.model = inner.model or self.model
        self._served(inner.service_tier)
        items = [each for each in inner.output if isinstance(each, dict)] if isinstance(inner.output, list) else []
        self.standard &= not any(each.get("type") in _RUN_THERE for each in items)
        usage = inner.usage
        if usage is not None:
            self.tokens = _openai_tokens(usage)
            self._searched(sum(_is_search(each) for each in items))
            self.ended = True  # no API of OpenAI's form tells it before the end

    def _of_gemini(self, said: _GeminiSaid) -> None:
        self.model = said.model_version or self.model
        for candidate in said.candidates or ():
            self.ended |= bool(candidate.finish_reason)
            self.standard &= not candidate.grounding_metadata
        if (told := said.usage_metadata) is not None:
            self._served(told.service_tier)
            cached = min(told.cached_content_token_count, told.prompt_token_count)
            self.tokens = Tokens(
                input=told.prompt_token_count - cached + told.tool_use_prompt_token_count,
                output=told.candidates_token_count + told.thoughts_token_count,
                cache_read=cached,
            )

    def _searched(self, count: Any) -> None:
        if isinstance(count, int) and count > 0 and self.tokens is not None:
            self.tokens = replace(self.tokens, searches=count)
        else:
            self.standard &= not count

    def _served(self, *kinds: Any) -> None:
        """In which tier, at which speed, where: None where the reply does not say."""
        for kind in kinds:
            self.standard &= kind is None or (isinstance(kind, str) and kind.lower() in _STANDARD)


def _anthropic_tokens(usage: _Usage, before: Tokens) -> Tokens:
    """Its counts are totals of the message; what an event does not tell is as it was."""

    def told(value: int | None, otherwise: int) -> int:
        return otherwise if value is None else value

    written = told(usage.cache_creation_input_tokens, before.cache_write + before.cache_write_1h)
    hour = usage.cache_creation.ephemeral_1h_input_tokens if usage.cache_creation else before.cache_write_1h
    hour = min(hour, written)
    return Tokens(
        input=told(usage.input_tokens, before.input),
        output=told(usage.output_tokens, before.output),
        cache_read=told(usage.cache_read_input_tokens, before.cache_read),
        cache_write=written - hour,
        cache_write_1h=hour,
        searches=before.searches,
    )


def _is_search(item: dict[Any, Any]) -> bool:
    """A search, and not a page that was opened or looked through (`action`); of one that does not say it, the worse."""
    action = item.get("action")
    kind = action.get("type", "search") if isinstance(action, dict) else "search"
    return item.get("type") == _SEARCHED and kind == "search"


def _openai_tokens(usage: _Usage) -> Tokens:
    """Its input includes what a cache had."""
    everything = usage.input_tokens if usage.prompt_tokens is None else usage.prompt_tokens
    output = usage.output_tokens if usage.completion_tokens is None else usage.completion_tokens
    details = usage.input_tokens_details or usage.prompt_tokens_details or _InputDetails()
    read = min(details.cached_tokens or 0, everything or 0)
    written = min(details.cache_write_tokens or 0, (everything or 0) - read)
    return Tokens(input=(everything or 0) - read - written, output=output or 0, cache_read=read, cache_write=written)
