"""The streams of an installation: to files, and back under a new epoch."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandreel_core.backup.manifest import StreamCopy, file_of
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.jetstream_snapshot import CHUNK_BYTES
from sandreel_core.bus.port import StreamState
from sandreel_core.contract.subjects import CMD, reel
from sandreel_core.errors import Malformed, Misconfigured, NotFound

FOLDER = "streams"
# (stream, bytes so far): called after every chunk.
Report = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Returned:
    """A stream that was put back. `lost` is what stood in its place, None where there was nothing."""

    copy: StreamCopy
    state: StreamState
    lost: StreamState | None


def in_order(names: list[str]) -> list[str]:
    """The order in which copies are consistent with each other, taken one after another while everything goes on.

    CMD last, so that no event of a copied REEL names a sequence that the copied CMD does not have; what was asked
    for and decided between the two is then in CMD without its outcome, and is decided again. All that is no REEL
    first (SLOTS says which boots are closed): what it claims, the REELs have.
    """
    return sorted(names, key=lambda name: (name == CMD, name.startswith(reel(0)[:-1]), name))


async def copy(bus: JetStreamBus, directory: Path, report: Report) -> list[StreamCopy]:
    """A file for every stream of the installation, below `directory`.

    Raises Misconfigured when this is no installation, Denied, Unavailable, OSError.
    """
    names = await bus.stream_names()
    if CMD not in names or reel(0) not in names:
        raise Misconfigured("there is no installation on this NATS: `sandreel up` makes one")
    (directory / FOLDER).mkdir(mode=0o700)
    return [await _copy(bus, name, directory, report) for name in in_order(names)]


async def _copy(bus: JetStreamBus, name: str, directory: Path, report: Report) -> StreamCopy:
    path, written, head = f"{FOLDER}/{name}.snapshot", 0, dict[str, Any]()
    descriptor = os.open(directory / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        async with aclosing(bus.take_copy(name, head)) as chunks:
            async for chunk in chunks:
                out.write(chunk)
                written += len(chunk)
                report(name, written)
    state = head["state"]
    return StreamCopy(
        name=name,
        epoch=(head["config"].get("metadata") or {}).get("epoch", ""),
        last_sequence=state["last_seq"],
        last_at=state["last_ts"] if state["last_seq"] and state["messages"] else None,
        messages=state["messages"],
        head={"config": head["config"], "state": state},
        file=file_of(directory, path),
    )


async def put_back(
    bus: JetStreamBus, directory: Path, copies: list[StreamCopy], *, epoch: str, replace: bool, report: Report
) -> list[Returned]:
    """Every stream of the backup, with this epoch in its metadata from its first moment on.

    CMD's metadata also says where it ended then (`restored_at`), so that runnerds that have handled more know it.
    What is there in the place of a copy is deleted first, with `replace`. Idempotent with that: a restore that was cut short is
    begun again. Raises Misconfigured without `replace` when there is something, Denied, Unavailable.
    """
    if not replace:
        await check_free(bus, copies)
    found = {each.name: await _state(bus, each.name) for each in copies}
    for state in found.values():
        if state is not None:
            await bus.drop_stream(state.name)
    returned = []
    for each in copies:
        metadata = dict(each.head["config"].get("metadata") or {}) | {"epoch": epoch}
        head = each.head | {"config": each.head["config"] | {"metadata": metadata}}
        async with aclosing(_chunks(directory, each, report)) as chunks:
            await bus.put_copy(each.name, head, chunks)
        state = await bus.state(each.name)
        if each.name == CMD:
            await bus.annotate(CMD, {"restored_at": str(state.last_sequence)})
        returned.append(Returned(each, state, found[each.name]))
    return returned


async def check_free(bus: JetStreamBus, copies: list[StreamCopy]) -> None:
    """Raises Misconfigured when there is a stream in the place of a copy."""
    there = [state for each in copies if (state := await _state(bus, each.name)) is not None]
    if there:
        held = ", ".join(f"{state.name} (up to {state.last_sequence:,})" for state in there)
        raise Misconfigured(f"there is already {held}: --replace deletes it and puts the copy in its place")


async def _state(bus: JetStreamBus, name: str) -> StreamState | None:
    try:
        return await bus.state(name)
    except NotFound:
        return None


async def _chunks(directory: Path, each: StreamCopy, report: Report) -> AsyncGenerator[bytes, None]:
    sent = 0
    with (directory / each.file.path).open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
            sent += len(chunk)
            report(each.name, sent)
    if sent != each.file.bytes:
        raise Malformed(f"{each.file.path} was cut while it was read")
