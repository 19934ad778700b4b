"""The streams of an installation: to files, and back under a new epoch."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandreel_core.backup.manifest import StreamCopy, file_of
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.jetstream_snapshot import CHUNK_BYTES
from sandreel_core.bus.port import StreamState, descended
from sandreel_core.contract.subjects import CMD, DEAD, reel
from sandreel_core.errors import Malformed, Misconfigured, NotFound

FOLDER = "streams"
# Beside the partitions of the log; SLOTS is the spawner's, GATEWAY the gateway's, which has what orgs have spent this month, TURNS,
# CONVERSATIONS and PROMPTS the bridge's, which without the first would never take up a turn that had not ended; EGRESS says who may reach what
# (a test compares this with what an installation makes).
_EGRESS = "EGRESS"
_SINGLE = (CMD, DEAD, "SLOTS", "GATEWAY", "TURNS", "CONVERSATIONS", "PROMPTS", _EGRESS)
_REEL = re.compile(r"REEL-[0-9]+")
# (stream, bytes so far): called after every chunk.
Report = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Returned:
    """A stream that was put back. `lost` is what stood in its place, None where there was nothing."""

    copy: StreamCopy
    state: StreamState
    lost: StreamState | None


def ours(names: Iterable[str]) -> list[str]:
    """The streams of an installation among those of an account, which may have others: none of our business."""
    return [name for name in names if name in _SINGLE or _REEL.fullmatch(name)]


def _of_the_log(names: Iterable[str]) -> list[str]:
    return [name for name in ours(names) if name != _EGRESS]


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
    names = ours(await bus.stream_names())
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
    What is there of the installation, also where there is no copy of it (slots that were taken since would say of boots that the
    log shows alive that they are closed), is deleted first, with `replace`; but who may reach what stays where it is there, for it is no
    part of the log, and what was taken from somebody since is not given again. Idempotent with that: a restore that was cut short is
    begun again. Raises Misconfigured without `replace` when there is something, Denied, Unavailable.
    """
    if not replace:
        await check_free(bus)
    found = {each.name: await _state(bus, each.name) for each in copies}
    for name in _of_the_log(await bus.stream_names()):
        await bus.drop_stream(name)
    returned = []
    for each in copies:
        if each.name == _EGRESS and found[_EGRESS] is not None:
            continue
        metadata = dict(each.head["config"].get("metadata") or {}) | {"epoch": epoch}
        head = each.head | {"config": each.head["config"] | {"metadata": metadata}}
        async with aclosing(_chunks(directory, each, report)) as chunks:
            await bus.put_copy(each.name, head, chunks)
        state = await bus.state(each.name)
        # So that what was archived before is known to belong to it.
        told = descended(each.head["config"].get("metadata") or {}, state.last_sequence)
        if each.name == CMD:
            told["restored_at"] = str(state.last_sequence)
        await bus.annotate(each.name, told)
        returned.append(Returned(each, state, found[each.name]))
    return returned


async def check_free(bus: JetStreamBus) -> None:
    """Raises Misconfigured when there is any stream of an installation."""
    there = [await bus.state(name) for name in in_order(_of_the_log(await bus.stream_names()))]
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
