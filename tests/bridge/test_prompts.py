"""Prompts that are too long for a command: kept whole or not at all, by their digest, each organisation's own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from sandreel_bridge.prompts import PROMPTS, Prompts, prompts
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.client import Client
from sandreel_core.client.prompt import hand_in
from sandreel_core.contract import turn as c
from sandreel_core.contract.files import FILE_CHUNK_BYTES
from sandreel_core.contract.prompt import MAX_LONG_PROMPT_BYTES, StorePrompt
from sandreel_core.contract.subjects import SessionSubjects
from sandreel_core.errors import Malformed, NotFound, Refused, Unavailable
from tests.bridge.test_commands import bridge
from tests.support.memory_gateway import MemoryGateway
from tests.support.turns import OWNER

pytestmark = pytest.mark.timeout(60)
WHERE = SessionSubjects("acme", "s1")
SUBJECT = WHERE.request("bridge", "prompt")
LONG = ("é" * 1000 + "\n") * 300  # more than two pieces, one of them cut within a character
WHOLE = LONG.encode()
DIGEST = hashlib.sha256(WHOLE).hexdigest()


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    bus = MemoryBus()
    await bus.ensure([prompts()])
    async with Prompts(bus).open():
        yield bus


def piece(number: int, **fields: Any) -> bytes:
    data = WHOLE[number * FILE_CHUNK_BYTES : (number + 1) * FILE_CHUNK_BYTES]
    given: dict[str, Any] = {
        "sha256": DIGEST,
        "size": len(WHOLE),
        "number": number,
        "base64": base64.b64encode(data).decode(),
    }
    return msgspec.json.encode(StorePrompt(**given | fields))


async def test_what_is_handed_in_is_kept_once_for_its_organisation(bus: MemoryBus) -> None:
    for _ in range(2):
        assert await hand_in(bus, WHERE, WHOLE, within_s=5) == DIGEST
    assert await Prompts(bus).read("acme", DIGEST) == LONG
    assert (await bus.state(PROMPTS)).messages == 3
    with pytest.raises(NotFound, match="hand it in again"):
        await Prompts(bus).read("other", DIGEST)
    with pytest.raises(Malformed, match=f"{MAX_LONG_PROMPT_BYTES + 1} bytes; the limit is {MAX_LONG_PROMPT_BYTES}"):
        await hand_in(bus, WHERE, bytes(MAX_LONG_PROMPT_BYTES + 1), within_s=5)


async def test_a_whole_that_is_not_its_digest_is_dropped_and_can_be_handed_in_again(bus: MemoryBus) -> None:
    wrong = base64.b64encode(bytes(FILE_CHUNK_BYTES)).decode()
    for body in (piece(1, base64=wrong), piece(2), piece(0)):
        await bus.request(SUBJECT, body)
    with pytest.raises(NotFound):
        await Prompts(bus).read("acme", DIGEST)
    await hand_in(bus, WHERE, WHOLE, within_s=5)
    assert await Prompts(bus).read("acme", DIGEST) == LONG


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (piece(0, base64="eA=="), Refused),
        (piece(2, base64=base64.b64encode(bytes(FILE_CHUNK_BYTES)).decode()), Refused),
        (piece(3), Refused),
        (piece(0, base64="not base64"), Malformed),
        (piece(0).replace(DIGEST.encode(), b"x.>"), Malformed),
        (piece(0).replace(b'"size"', b'"sise"'), Malformed),
        (b"", Malformed),
    ],
)
async def test_a_piece_that_is_none_is_not_kept(bus: MemoryBus, body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        await bus.request(SUBJECT, body)
    assert (await bus.state(PROMPTS)).messages == 0


async def test_without_a_bridge_it_is_told_in_time() -> None:
    with pytest.raises(Unavailable, match="no bridge has taken the prompt"):
        await hand_in(MemoryBus(), WHERE, WHOLE, within_s=0.3)


async def test_a_turn_names_a_prompt_that_is_kept_or_is_refused() -> None:
    async with bridge(MemoryGateway()) as client:
        await client.turn("acme", "s1", owner=OWNER, agent="claude-code", prompt=LONG, turn="t1")
        first = await Client(client.bus).open_turn("acme", "t1", "s1")
        items = [item async for item in first.follow(live=False)]
        requested: Any = items[0]
        assert requested.data.prompt_object == DIGEST
        assert LONG.startswith(requested.data.prompt)
        start = c.StartTurn(turn="t2", agent="claude-code", prompt="x", prompt_object="0" * 64, owner=OWNER)
        with pytest.raises(Refused, match="PROMPT_NOT_FOUND"):
            await client.send("acme", "s1", start)
