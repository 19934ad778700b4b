"""Typed input: in order, each byte once, whatever becomes of requests and answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from sandreel_core.client.keyboard import MAX_WAITING_BYTES, Keyboard
from sandreel_core.contract.runnerd import KeysTaken
from sandreel_core.errors import NotFound, Refused, SandreelError, Unavailable


class Far:
    """runnerd's side (`runnerd.input.Input`), behind a bus that does what `fate` says with every request."""

    def __init__(self, fate: Callable[[], str] = lambda: "") -> None:
        self.typed = bytearray()
        self.fate = fate
        self.most = 1 << 30
        self.calls = 0
        self._turn = asyncio.Lock()

    async def type(
        self, data: bytes, *, offset: int, writer: str | None = None, timeout_s: float | None = None
    ) -> KeysTaken:
        self.calls += 1
        assert writer is not None
        fate = self.fate()
        if fate == "lost":
            raise Unavailable("no answer")
        if fate == "nobody":
            raise NotFound("nobody serves")
        if fate == "late":
            await asyncio.sleep(0.002)
        async with self._turn:
            if offset <= len(self.typed):
                fresh = data[len(self.typed) - offset :][: self.most]
                self.typed += fresh[:1] if fate == "short" else fresh
            taken = len(self.typed)
        if fate == "answer lost":
            raise Unavailable("no answer")
        return KeysTaken(offset=taken)


@asynccontextmanager
async def running(keyboard: Keyboard) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(keyboard.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, SandreelError):
            await task


async def flushed(keyboard: Keyboard) -> None:
    await keyboard.flush(within_s=60)
    assert keyboard.waiting == 0


@pytest.mark.parametrize("seed", range(4))
async def test_every_byte_is_typed_once_and_in_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandreel_core.client.keyboard._FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("sandreel_core.client.keyboard._GREATEST_PAUSE_S", 0.002)
    dice = random.Random(seed)
    far = Far(lambda: dice.choice(["", "", "", "late", "short", "lost", "nobody", "answer lost"]))
    keyboard = Keyboard(far.type)
    text = dice.randbytes(60_000)
    async with running(keyboard):
        at = 0
        while at < len(text):
            size = dice.choice([1, 1, 3, 9000])
            assert await keyboard.put_all(text[at : at + size], within_s=30) == len(text[at : at + size])
            at += size
            await asyncio.sleep(0)
        await flushed(keyboard)

    assert bytes(far.typed) == text


async def test_a_key_goes_at_once_and_alone() -> None:
    far = Far()
    keyboard = Keyboard(far.type)
    async with running(keyboard):
        for key in b"abc":
            keyboard.put(bytes([key]))
            await flushed(keyboard)
    assert (bytes(far.typed), far.calls) == (b"abc", 3)


async def test_what_is_typed_while_nobody_answers_is_kept_within_a_bound() -> None:
    away = True
    far = Far(lambda: "lost" if away else "")
    keyboard = Keyboard(far.type)
    async with running(keyboard):
        assert keyboard.put(b"x" * MAX_WAITING_BYTES) == MAX_WAITING_BYTES
        assert keyboard.put(b"y") == 0
        assert await keyboard.put_all(b"y", within_s=0.01) == 0
        while keyboard.trouble is None:
            await asyncio.sleep(0)
        assert keyboard.waits_s > 0
        away = False
        assert await keyboard.put_all(b"z", within_s=30) == 1
        await flushed(keyboard)
    assert bytes(far.typed) == b"x" * MAX_WAITING_BYTES + b"z"
    assert keyboard.waits_s == 0


async def test_a_terminal_that_takes_no_more_says_so() -> None:
    async def refuse(
        data: bytes, *, offset: int, writer: str | None = None, timeout_s: float | None = None
    ) -> KeysTaken:
        raise Refused("EXEC_NOT_FOUND", "the exec has ended")

    keyboard = Keyboard(refuse)
    keyboard.put(b"x")
    with pytest.raises(Refused, match="EXEC_NOT_FOUND"):
        await keyboard.run()


async def test_a_keyboard_that_was_forgotten_repeats_nothing() -> None:
    far = Far()
    keyboard = Keyboard(far.type)
    async with running(keyboard) as task:
        keyboard.put(b"abc")
        await flushed(keyboard)
        far.typed.clear()
        keyboard.put(b"d")
        with pytest.raises(Refused, match="KEYS_FORGOTTEN"):
            await task
    assert far.typed == b""
