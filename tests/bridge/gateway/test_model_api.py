"""The stand-in of the model APIs says what its script says, in each API's own form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.http import call, opened
from tests.support.model_api import Edit, Failure, ModelApi, Reply, Say, Shell, Think, Tokens, by_prompt, steps
from tests.support.model_api.directives import directives
from tests.support.model_api.scenario import MEND, scenario

TOKENS = Tokens(input=10, cache_read=7, cache_creation=3, output=9, reasoning=4)


def anthropic(text: str, *, stream: bool = False) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": text}]
    return "/v1/messages?beta=true", {"model": "m", "max_tokens": 64, "stream": stream, "messages": messages}


def chat(text: str, *, stream: bool = False) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"model": "m", "stream": stream, "messages": [{"role": "user", "content": text}]}


def responses(text: str, *, stream: bool = False) -> tuple[str, dict[str, Any]]:
    return "/v1/responses", {"model": "m", "stream": stream, "input": text}


def gemini(text: str, *, stream: bool = False) -> tuple[str, dict[str, Any]]:
    verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return f"/v1beta/models/m:{verb}", {"contents": [{"role": "user", "parts": [{"text": text}]}]}


APIS = pytest.mark.parametrize("api", [anthropic, chat, responses, gemini])
Form = Callable[..., tuple[str, dict[str, Any]]]


def events(body: bytes) -> list[Any]:
    data = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(each) for each in data if each != "[DONE]"]


def _usage(said: Any) -> Any:
    return said.get("usage") or said.get("usageMetadata")


@APIS
async def test_a_reply_in_one_piece_and_in_pieces_says_the_same_tokens(api: Form) -> None:
    async with ModelApi(steps(Reply("two words", tokens=TOKENS))) as server:
        path, body = api("hello")
        whole = (await call(server.url + path, body=body)).json
        path, body = api("hello", stream=True)
        streamed = await call(server.url + path, body=body)
    assert streamed.complete
    last = events(streamed.body)[-1]
    said = next(each for each in (events(streamed.body)[-2], last, last.get("response") or {}) if _usage(each))
    assert _usage(whole) == _usage(said)
    assert [seen.model for seen in server.seen] == ["m", "m"]


@APIS
async def test_a_failure_has_its_status_and_the_apis_own_form(api: Form) -> None:
    async with ModelApi(steps(Failure(429, "too many"))) as server:
        path, body = api("hello", stream=True)
        answer = await call(server.url + path, body=body)
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert answer.json["error"]["message"] == "too many"


@APIS
async def test_a_cut_is_no_end(api: Form) -> None:
    async with ModelApi(steps(Reply("one two three", cut_after=1))) as server:
        path, body = api("hello", stream=True)
        answer = await call(server.url + path, body=body)
    assert answer.status == 200
    assert answer.body
    assert not answer.complete


async def test_a_hang_is_silent_until_the_client_leaves() -> None:
    async with ModelApi(steps(Reply("one two three", hang_after=2))) as server:
        path, body = anthropic("hello", stream=True)
        async with opened(server.url + path, body=body) as answer:
            pieces = answer.pieces()
            await anext(pieces)
            await anext(pieces)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await anext(pieces)
        async with asyncio.timeout(10):
            while not server.gone:
                await asyncio.sleep(0.01)


async def test_steps_follow_the_tools_that_answered() -> None:
    tools = [{"name": "Bash"}, {"name": "Edit"}]
    script = by_prompt(
        {"mend": [Reply(Think("so"), Shell("ls")), Reply(Edit("a.py", "x", "y")), Reply("Done.")]}, steps("?")
    )
    messages: list[Any] = [{"role": "user", "content": "mend it"}]
    said = []
    async with ModelApi(script) as server:
        for _ in range(3):
            body = {"model": "m", "messages": messages, "tools": tools, "system": "Working directory: /workspace/repo"}
            content = (await call(f"{server.url}/v1/messages", body=body)).json["content"]
            said.append(content[-1])
            results = [{"type": "tool_result", "tool_use_id": each["id"], "content": "ok"} for each in content if each["type"] == "tool_use"]  # fmt: skip
            messages += [{"role": "assistant", "content": content}, {"role": "user", "content": results}]
    assert said[0]["input"]["command"] == "ls"
    assert said[1]["input"] == {"file_path": "/workspace/repo/a.py", "old_string": "x", "new_string": "y"}
    assert said[2]["text"] == "Done."


async def test_a_prompt_leads_it_and_without_a_word_it_mends_a_test() -> None:
    async with ModelApi(directives(scenario())) as server:
        path, body = anthropic("[[text a b]]")
        assert (await call(server.url + path, body=body)).json["content"][0]["text"] == "a b"
        path, body = anthropic("[[plan 1. look]]")
        assert (await call(server.url + path, body=body)).json["content"][0]["text"] == "1. look"
        body |= {"tools": [{"name": "ExitPlanMode"}]}
        assert (await call(server.url + path, body=body)).json["content"][0]["input"] == {"plan": "1. look"}
        path, body = anthropic("[[error 402]]")
        assert (await call(server.url + path, body=body)).status == 402
        path, body = anthropic("Fix the failing test")
        assert (await call(server.url + path, body=body)).json["content"][1]["text"] == MEND[0].blocks[1].text  # type: ignore[union-attr]
        assert isinstance(MEND[0].blocks[1], Say)
