"""The shapes of what Claude Code prints, as far as they are used: a line of another shape is passed on as it came. Pure."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from sandreel_bridge.adapters.adapter import micro_usd
from sandreel_core.contract import turn as t
from sandreel_core.contract.message import Count


class Tokens(Struct):
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None

    def usage(self) -> t.Usage:
        read, created = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        return t.Usage(
            input_tokens=(self.input_tokens or 0) + read + created,
            output_tokens=self.output_tokens or 0,
            cache_read_input_tokens=read,
            cache_creation_input_tokens=created,
        )


class ModelTokens(Struct, frozen=True, rename="camel"):
    input_tokens: Count = 0
    output_tokens: Count = 0
    cache_read_input_tokens: Count = 0
    cache_creation_input_tokens: Count = 0
    cost_usd: float | None = msgspec.field(name="costUSD", default=None)

    def usage(self) -> t.Usage:
        read, created = self.cache_read_input_tokens, self.cache_creation_input_tokens
        return t.Usage(
            input_tokens=self.input_tokens + read + created,
            output_tokens=self.output_tokens,
            cache_read_input_tokens=read,
            cache_creation_input_tokens=created,
            cost_micro_usd=micro_usd(self.cost_usd),
        )


class Message(Struct, frozen=True):
    content: str | list[Raw] = ""
    id: str | None = None
    model: str | None = None
    usage: Tokens | None = None


class Block(Struct, frozen=True):
    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: Any = None
    tool_use_id: str = ""
    content: Any = None
    is_error: bool | None = None


class Delta(Struct, frozen=True):
    type: str | None = None
    text: str | None = None


class Event(Struct, frozen=True):
    type: str
    message: Message | None = None
    delta: Delta | None = None
    usage: Tokens | None = None


class Streamed(Struct, frozen=True, tag_field="type", tag="stream_event"):
    event: Event
    parent_tool_use_id: str | None = None


class Assistant(Struct, frozen=True, tag_field="type", tag="assistant"):
    message: Message
    parent_tool_use_id: str | None = None
    error: Any = None


class User(Struct, frozen=True, tag_field="type", tag="user"):
    message: Message
    parent_tool_use_id: str | None = None
    isReplay: bool = False  # noqa: N815 - the wire's


class System(Struct, frozen=True, tag_field="type", tag="system"):
    subtype: str = ""
    session_id: str | None = None
    model: str | None = None
    task_id: str | None = None
    tool_use_id: str | None = None
    description: str | None = None
    status: str | None = None
    attempt: int | None = None
    max_retries: int | None = None
    retry_delay_ms: float | None = None
    error_status: int | None = None
    error: Any = None


class Result(Struct, frozen=True, tag_field="type", tag="result"):
    subtype: str = ""
    is_error: bool = False
    terminal_reason: str | None = None
    api_error_status: int | None = None
    session_id: str | None = None
    result: str | None = None
    errors: list[Any] = []
    duration_ms: Count | None = None
    usage: Tokens | None = None
    model_usage_since_last_result: dict[str, ModelTokens] | None = None


class Lifecycle(Struct, frozen=True, tag_field="type", tag="command_lifecycle"):
    """Of a message that was sent under a UUID. Passed on, as every unknown line is, without the price of an exception."""


Line: TypeAlias = Streamed | Assistant | User | System | Result | Lifecycle
