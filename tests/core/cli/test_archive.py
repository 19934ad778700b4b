"""`sandreel archive` as an operator types it: what goes by age, what goes by pressure, and what the views need yet."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandreel_core import clock
from sandreel_core.bus.jetstream import JetStreamBus
from sandreel_core.bus.port import Stream
from sandreel_core.cli import archive as command
from sandreel_core.contract import codec
from sandreel_core.contract import exec as x
from sandreel_core.contract.cursor import Cursor
from sandreel_core.contract.message import Event
from sandreel_core.contract.subjects import SessionSubjects, reel
from sandreel_core.embedded.nats import NatsServer
from sandreel_core.errors import SandreelError, Unavailable
from tests.support.nats import Connect
from tests.support.program import Done
from tests.support.samples import AT
from tests.support.shell import Shell

MAX_BYTES = 120_000
SUBJECTS = SessionSubjects("acme", "s1")
Places = Callable[[str], Awaitable[list[Cursor]]]


@dataclass
class Rig:
    shell: Shell
    bus: JetStreamBus
    data: Path

    async def put(self, exec_id: str, size: int = 10) -> int:
        """An exec that has ended, with so much output; the sequence of its end."""
        subject, last = SUBJECTS.exec(exec_id), 0
        output = x.Output(stream="stdout", line=1, count=0, text="x" * size, eol=False)
        events: list[Event] = [x.Accepted(boot_id="1-1"), output, x.Exited(exit_code=0, reason="exited", duration_ms=1)]
        for n, event in enumerate(events, 1):
            sealed = codec.seal(event, id=clock.new_id(), source="/test", subject=subject, time=AT, n=n)
            last = await self.bus.append(subject, codec.encode(sealed))
        return last

    async def archive(self, *arguments: str) -> Done:
        return await self.shell.here("archive", "--json", *arguments)

    async def left(self) -> int:
        return (await self.bus.state(reel(0))).bytes


@pytest.fixture
async def rig(nats_server: NatsServer, connect_bus: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.delenv("SANDREEL_POSTGRES_DSN", raising=False)
    bus = await connect_bus()
    await bus.ensure([Stream(reel(0), ("evt.0.>",), MAX_BYTES, metadata={"epoch": "e1"})])
    for name, user in (("client", "client"), ("roles", "role")):
        lines = [f'nats_urls = ["{nats_server.url}"]', f'user = "{user}"', f'password = "{nats_server.password(user)}"']
        (tmp_path / f"{name}.toml").write_text("\n".join(["[bus]", *lines, ""]))
    return Rig(Shell(tmp_path), bus, tmp_path)


async def test_what_ended_longer_ago_than_asked_goes(rig: Rig) -> None:
    await rig.put("a")
    before = await rig.left()
    assert (await rig.archive("--older-than", "1h")).objects[0]["execs"] == 0
    assert await rig.left() == before
    (fields,) = (await rig.archive("--older-than", "0.001")).objects
    assert (fields["execs"], fields["unread_execs"], len(fields["files"])) == (1, 0, 1)
    assert await rig.left() == fields["stream_bytes_after"] < before
    assert Path(fields["files"][0]).is_relative_to(rig.data / "archive" / reel(0))


async def test_above_eighty_percent_the_oldest_go_until_it_is_at_sixty(rig: Rig) -> None:
    for number in range(7):
        await rig.put(f"x{number}", 10_000)
    assert await rig.left() < command.PRESSURE * MAX_BYTES
    assert (await rig.archive()).objects[0]["execs"] == 0
    for number in range(7, 10):
        await rig.put(f"x{number}", 10_000)
    assert await rig.left() > command.PRESSURE * MAX_BYTES
    (fields,) = (await rig.archive()).objects
    assert 0.4 * MAX_BYTES < fields["stream_bytes_after"] <= command.RELIEF * MAX_BYTES
    kept = await rig.bus.subjects(reel(0), "evt.0.acme.s1.exec.*")
    gone = [subject.rpartition(".")[2] for subject, messages in kept.items() if messages == 1]
    assert sorted(gone) == [f"x{number}" for number in range(fields["execs"])], "the oldest first"


@dataclass(frozen=True)
class Reader:
    """An entry point."""

    places: Places

    def load(self) -> Places:
        return self.places


@pytest.fixture
def read_to(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say how far the views have read, or why nobody can say so."""
    monkeypatch.setenv("SANDREEL_POSTGRES_DSN", "postgresql://nobody@127.0.0.1:1/nothing")

    def tell(*cursors: Cursor, problem: SandreelError | None = None) -> None:
        async def places(dsn: str) -> list[Cursor]:
            if problem is not None:
                raise problem
            return list(cursors)

        monkeypatch.setattr(command, "entry_points", lambda group: [Reader(places)])

    return tell


async def test_law_3_what_the_views_have_not_read_stays_unless_it_is_forced(
    rig: Rig, read_to: Callable[..., None]
) -> None:
    read = await rig.put("a")
    await rig.put("b")
    read_to(Cursor("e0", 0, 1000), Cursor("e1", 1, 1000))
    nothing = (await rig.archive("--all")).objects[0]
    assert (nothing["execs"], nothing["unread_execs"]) == (0, 2), "another stream's cursors say nothing of this one"
    read_to(Cursor("e1", 0, read), Cursor("e1", 0, 1000))
    some = (await rig.archive("--all")).objects[0]
    assert (some["execs"], some["unread_execs"]) == (1, 1), "the reader that is behind counts"
    said = (await rig.shell.here("archive", "--all")).out.decode()
    assert "1 execs stay, the views have not read them yet" in said
    rest = (await rig.archive("--all", "--force")).objects[0]
    assert (rest["execs"], rest["unread_execs"]) == (1, 0)


async def test_law_3_while_the_views_cannot_be_asked_nothing_is_purged(
    rig: Rig, read_to: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.put("a")
    before = await rig.left()
    read_to(problem=Unavailable("Postgres is away"))
    refused: list[Any] = [await rig.archive("--all")]
    monkeypatch.setattr(command, "entry_points", lambda group: [])
    refused.append(await rig.archive("--all"))
    for done, why in zip(refused, ("Postgres is away", "pip install"), strict=True):
        assert (done.code, done.out, done.err.count("\n")) == (2, b"", 1)
        assert why in done.err
        assert "--force" in done.err
    assert await rig.left() == before
    assert json.loads((await rig.archive("--all", "--force")).out)["execs"] == 1
