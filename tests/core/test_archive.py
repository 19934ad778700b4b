"""Archived execs: the same messages in files, a tombstone in the stream, nothing lost when it is cut short."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from sandreel_core.archive import archive, manifests, read
from sandreel_core.bus.execs import Recorded, follow_exec
from sandreel_core.bus.memory import MemoryBus
from sandreel_core.bus.port import Stream
from sandreel_core.contract import codec
from sandreel_core.contract import exec as x
from sandreel_core.contract.message import Event
from sandreel_core.contract.subjects import SessionSubjects, reel
from sandreel_core.errors import Malformed, Unavailable
from tests.support.samples import AT

SUBJECTS = SessionSubjects("acme", "s1")
EXITED = x.Exited(exit_code=0, reason="exited", duration_ms=1)


async def filled(*lives: str) -> MemoryBus:
    """A stream with one exec for each name: whole, `open-…` without an end, `holed-…` with a hole before it."""
    bus = MemoryBus()
    await bus.ensure([Stream(reel(0), ("evt.0.>",), max_bytes=1 << 30, metadata={"epoch": "e0"})])
    output = x.Output(stream="stdout", line=1, count=1, text="hello\n", eol=True)
    for exec_id in lives:
        events: list[Event] = [x.Accepted(boot_id="1-1"), output, EXITED]
        for n, payload in enumerate(events, 1):
            if (exec_id.startswith("open") and n == 3) or (exec_id.startswith("holed") and n == 2):
                continue
            subject = SUBJECTS.exec(exec_id)
            sealed = codec.seal(payload, id=f"{exec_id}-{n}", source="/test", subject=subject, time=AT, n=n)
            await bus.append(subject, codec.encode(sealed))
    return bus


async def test_ended_execs_move_and_leave_their_end(tmp_path: Path) -> None:
    bus = await filled("a", "open-b", "c", "holed-d")
    whole = {s: await bus.last(reel(0), s) for s in (SUBJECTS.exec("a"), SUBJECTS.exec("c"))}
    written = await archive(bus, 0, tmp_path)
    assert manifests(tmp_path, reel(0)) == written
    stored = [m for manifest in written for m in read(tmp_path, manifest)]
    assert [codec.decode_event(m.subject, m.body).n for m in stored] == [1, 2, 3, 1, 2, 3]
    assert {m.subject for m in stored} == set(whole)
    for subject, terminal in whole.items():
        assert await bus.subjects(reel(0), subject) == {subject: 1}
        assert await bus.last(reel(0), subject) == terminal
    assert await bus.subjects(reel(0), SUBJECTS.exec("open-b")) == {SUBJECTS.exec("open-b"): 2}
    assert await bus.subjects(reel(0), SUBJECTS.exec("holed-d")) == {SUBJECTS.exec("holed-d"): 2}


async def test_only_what_ended_before(tmp_path: Path) -> None:
    bus = await filled("a", "b")
    ended = await bus.last(reel(0), SUBJECTS.exec("b"))
    assert ended is not None
    written = await archive(bus, 0, tmp_path, before_ns=ended.time_ns)
    assert [e.subject for m in written for e in m.execs] == [SUBJECTS.exec("a")]


async def test_under_pressure_the_oldest_go_first_and_no_more_than_needed(tmp_path: Path) -> None:
    bus = await filled("a", "b", "c", "d")
    state = await bus.state(reel(0))
    written = await archive(bus, 0, tmp_path, down_to_bytes=state.bytes * 3 // 4)
    moved = [e.subject for m in written for e in m.execs]
    assert moved == [SUBJECTS.exec("a"), SUBJECTS.exec("b")][: len(moved)]
    assert 0 < len(moved) < 4
    assert (await bus.state(reel(0))).bytes <= state.bytes * 3 // 4


async def test_killed_before_the_purge_it_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = await filled("a")

    async def killed(*_: object, **__: object) -> int:
        raise Unavailable("killed")

    with monkeypatch.context() as patched:
        patched.setattr(bus, "purge", killed)
        with pytest.raises(Unavailable):
            await archive(bus, 0, tmp_path)
    again = await archive(bus, 0, tmp_path)
    assert [e.subject for m in again for e in m.execs] == [SUBJECTS.exec("a")]
    assert manifests(tmp_path, reel(0)) == again, "the same exec to the same file: nothing is there twice"
    assert not list(tmp_path.rglob("*.part"))


async def put(bus: MemoryBus, exec_id: str, payload: Event, n: int) -> int:
    subject = SUBJECTS.exec(exec_id)
    sealed = codec.seal(payload, id=f"{exec_id}-{n}", source="/test", subject=subject, time=AT, n=n)
    return await bus.append(subject, codec.encode(sealed))


async def test_law_3_a_later_archive_never_replaces_an_earlier_file(tmp_path: Path) -> None:
    bus = await filled("holed-a", "b")
    first = await archive(bus, 0, tmp_path)
    for n, payload in enumerate([x.Accepted(boot_id="1-1"), EXITED], 1):
        await put(bus, "c", payload, n)
    second = await archive(bus, 0, tmp_path)
    assert manifests(tmp_path, reel(0)) == first + second
    kept = {m.subject for manifest in manifests(tmp_path, reel(0)) for m in read(tmp_path, manifest)}
    assert kept == {SUBJECTS.exec("b"), SUBJECTS.exec("c")}
    assert await archive(bus, 0, tmp_path) == [], "and what cannot be archived makes no file"


async def test_law_3_a_second_archiver_that_comes_too_late_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await filled("a", "b")
    purge = bus.purge
    done: list[object] = []

    async def overtaken(*args: object, **named: object) -> int:
        with monkeypatch.context() as patched:
            patched.setattr(bus, "purge", purge)
            if not done:
                done.append(await archive(bus, 0, tmp_path, down_to_bytes=(await bus.state(reel(0))).bytes - 1))
        return await purge(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(bus, "purge", overtaken)
    await archive(bus, 0, tmp_path)
    kept = [m for manifest in manifests(tmp_path, reel(0)) for m in read(tmp_path, manifest)]
    assert {(m.subject, codec.decode_event(m.subject, m.body).n) for m in kept} == {
        (SUBJECTS.exec(name), n) for name in "ab" for n in (1, 2, 3)
    }


async def test_law_2_the_end_that_counts_is_the_tombstone(tmp_path: Path) -> None:
    bus = await filled("open-a")
    end = await put(bus, "open-a", x.Lost(boot_id="1-1", last_n=2, cause="runnerd_died"), 3)
    await put(bus, "open-a", EXITED, 3)
    (manifest,) = await archive(bus, 0, tmp_path)
    assert [e.terminal_seq for e in manifest.execs] == [end]
    async with aclosing(follow_exec(bus, SUBJECTS, "open-a", live=False)) as items:
        ends = [item.event.data async for item in items if isinstance(item, Recorded)]
    assert [type(data) for data in ends] == [x.Lost]
    assert await archive(bus, 0, tmp_path) == []


async def test_any_body_comes_back_byte_for_byte(tmp_path: Path) -> None:
    bus = await filled("open-a")
    strange = b"{\n}"
    await bus.append(SUBJECTS.exec("open-a"), strange)
    await bus.append(SUBJECTS.exec("open-a"), b"\xff")
    sealed = codec.seal(EXITED, id="e", source="/t", subject=SUBJECTS.exec("open-a"), time=AT, n=3)
    pretty = msgspec.json.format(codec.encode(sealed), indent=1)
    await bus.append(SUBJECTS.exec("open-a"), pretty)
    (manifest,) = await archive(bus, 0, tmp_path)
    assert [m.body for m in read(tmp_path, manifest)][2:] == [strange, b"\xff", pretty]


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (manifest,) = await archive(await filled("a"), 0, tmp_path)
    file = tmp_path / reel(0) / manifest.file
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(Malformed, match="digest"):
        list(read(tmp_path, manifest))
