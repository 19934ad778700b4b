"""What `port.py` promises of requests and of what is stored nowhere, over the memory twin and over JetStream."""

from __future__ import annotations

import asyncio

import pytest

from sandreel_core.bus.port import Handler
from sandreel_core.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    Malformed,
    NotFound,
    Over,
    Refused,
    SandreelError,
    TooLarge,
    Unavailable,
)
from tests.core.bus.conftest import LIMIT_S, World


@pytest.mark.parametrize(
    "error",
    [
        Refused("EXEC_NOT_FOUND", "there is none"),
        NotFound("no"),
        Denied("not you"),
        Over("boot 1-1 is over"),
        Malformed("field x"),
        Unavailable("later"),
        Conflict("again"),
        TooLarge("big"),
        AlreadyExists("here"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_a_handler_raises_reaches_whoever_asked(world: World, error: SandreelError) -> None:
    asker = await world.another()

    async def handler(subject: str, body: bytes) -> bytes:
        if body == b"raise":
            raise error
        return subject.encode() + b" " + body

    async with world.bus.serve("req.runnerd.*.s1.health", handler):
        assert await asker.request("req.runnerd.acme.s1.health", b"hi") == b"req.runnerd.acme.s1.health hi"
        with pytest.raises(type(error)) as caught:
            await asker.request("req.runnerd.acme.s1.health", b"raise")
        assert type(caught.value) is type(error)
        assert str(caught.value) == str(error)
        with pytest.raises(NotFound):
            await asker.request("req.runnerd.acme.s2.health", b"hi")


async def test_a_handlers_bug_answers_one_request_badly(world: World) -> None:
    async def handler(subject: str, body: bytes) -> bytes:
        return str(1 // len(body)).encode()

    async with world.bus.serve("req.a", handler):
        with pytest.raises(Unavailable, match="logged why"):
            await world.bus.request("req.a", b"")
        assert await world.bus.request("req.a", b"x") == b"1"


async def test_no_answer_in_time_is_unavailable(world: World) -> None:
    async def handler(subject: str, body: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with world.bus.serve("req.a", handler):
        with pytest.raises(Unavailable):
            await world.bus.request("req.a", b"", timeout_s=0.1)


async def test_an_answer_that_is_too_large_is_told_and_the_service_goes_on(world: World) -> None:
    async def handler(subject: str, body: bytes) -> bytes:
        if body == b"refuse":
            raise Refused("NO", "x" * (world.bus.max_payload + 1))
        return bytes(world.bus.max_payload + int(body))

    async with world.bus.serve("req.a", handler):
        for body in (b"1", b"refuse"):
            with pytest.raises(TooLarge):
                await world.bus.request("req.a", body, timeout_s=LIMIT_S)
        assert len(await world.bus.request("req.a", b"0", timeout_s=LIMIT_S)) == world.bus.max_payload


async def test_of_a_group_one_answers_and_the_service_survives_the_server(world: World) -> None:
    other = await world.another()
    asked: list[str] = []

    def handler_of(name: str) -> Handler:
        async def handler(subject: str, body: bytes) -> bytes:
            asked.append(name)
            return name.encode()

        return handler

    async with (
        world.bus.serve("req.a", handler_of("1"), group="g"),
        other.serve("req.a", handler_of("2"), group="g"),
    ):
        for _ in range(10):
            await world.bus.request("req.a", b"")
        assert len(asked) == 10
        generations = [(bus, bus.generation) for bus in (world.bus, other)]
        await world.crash()
        await world.start()
        async with asyncio.timeout(LIMIT_S):
            for bus, generation in generations:
                await bus.wait_connected(generation)
            while True:  # it subscribes again a moment after it is connected
                try:
                    await world.bus.request("req.a", b"")
                    break
                except NotFound:
                    await asyncio.sleep(0.01)


async def test_handlers_run_at_the_same_time(world: World) -> None:
    both = asyncio.Barrier(2)

    async def handler(subject: str, body: bytes) -> bytes:
        await both.wait()
        return body

    async with world.bus.serve("req.a", handler), asyncio.timeout(LIMIT_S):
        answers = await asyncio.gather(world.bus.request("req.a", b"1"), world.bus.request("req.a", b"2"))
    assert list(answers) == [b"1", b"2"]


async def test_listeners_hear_what_is_published(world: World) -> None:
    other = await world.another()
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    async with world.bus.listen("hb.*.*", lambda subject, body: heard.put_nowait((subject, body))):
        await other.publish("hb.acme.s1", b"alive")
        assert await asyncio.wait_for(heard.get(), LIMIT_S) == ("hb.acme.s1", b"alive")
