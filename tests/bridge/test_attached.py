"""Files that go along with a turn: in the workspace before its program starts, whole, each in its place, or the turn does not run."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from sandreel_core.client.prompt import BEGINNING_BYTES
from sandreel_core.contract import turn as c
from sandreel_core.contract.prompt import MAX_LONG_PROMPT_BYTES
from sandreel_core.errors import Malformed
from tests.support.bridges import Turns, open_turns, texts
from tests.support.program import sandreel
from tests.support.system import ORG

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
# Every byte there is, none of it UTF-8 as a whole, and more than one piece of an upload.
BINARY = bytes(range(256)) * 2000
TEXT = "Zażółć\n\tgęślą jaźń, without an end of line"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def turns() -> AsyncIterator[Turns]:
    async with open_turns() as turns, turns.bridge():
        yield turns


async def turned(turns: Turns, *words: str, cwd: Path) -> tuple[int, str]:
    """(exit code, all that `sandreel turn` printed)."""
    done = await sandreel(turns.site.data, "turn", *words, "--org", ORG, cwd=cwd)
    assert "Traceback" not in done.said
    return done.code, done.said


async def test_a_person_attaches_files_and_the_program_finds_them(turns: Turns, tmp_path: Path) -> None:
    """By whatever way they were named; what is attached to another turn under the same name is another file."""
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "notes.txt").write_text(TEXT)
    (here / "data.bin").write_bytes(BINARY)
    (here / "with space.txt").write_bytes(b"")
    (here / "link").symlink_to(here / "data.bin")
    look = "sh cd ../uploads/first && cat notes.txt && echo && sha256sum < data.bin && cmp data.bin link && ls -1"
    attached = (
        "--attach",
        "../notes.txt",
        "--attach",
        str(here / "data.bin"),
        "--attach",
        "with space.txt",
        "--attach",
        "link",
    )
    code, said = await turned(turns, look, "--session", "files", "--id", "first", *attached, cwd=here)
    assert code == 0, said
    digest = hashlib.sha256(BINARY).hexdigest()
    expected = f"{TEXT}\n{digest}  -\ndata.bin\nlink\nnotes.txt\nwith space.txt\n(0)"
    assert texts(await turns.events("files", "first")) == [expected]
    (tmp_path / "notes.txt").write_text("other")
    again = "sh cat ../uploads/second/notes.txt ../uploads/first/notes.txt"
    code, said = await turned(
        turns, again, "--session", "files", "--id", "second", "--attach", "../notes.txt", cwd=here
    )
    assert code == 0, said
    assert texts(await turns.events("files", "second")) == [f"other{TEXT}(0)"]


async def test_a_prompt_of_any_length_arrives_whole(turns: Turns, tmp_path: Path) -> None:
    """It stands in the log with its beginning and its digest, and reaches the program over stdin, in as many pieces as that takes."""
    text = "żółw " * 150_000
    (tmp_path / "task.md").write_text(f"count {text}")
    code, said = await turned(turns, "--file", "task.md", "--session", "long", "--id", "long", cwd=tmp_path)
    assert code == 0, said
    counted = text.strip()
    expected = f"{len(counted)} {hashlib.sha256(counted.encode()).hexdigest()}"
    events = await turns.events("long", "long")
    assert texts(events) == [expected]
    requested = events[0].data
    assert isinstance(requested, c.TurnRequested)
    assert requested.prompt is not None
    assert f"count {text}".startswith(requested.prompt)
    assert len(requested.prompt.encode()) <= BEGINNING_BYTES
    assert requested.prompt_object == hashlib.sha256(f"count {text}".encode()).hexdigest()
    # Beyond what can be handed in: one line, before anything is sent.
    with (tmp_path / "task.md").open("a") as file:
        file.write("x" * MAX_LONG_PROMPT_BYTES)
    code, said = await turned(turns, "--file", "task.md", "--session", "long", cwd=tmp_path)
    assert (code, said.count("\n")) == (2, 1)
    assert f"--file 'task.md' has more than {MAX_LONG_PROMPT_BYTES} bytes, which is the limit" in said


async def test_what_cannot_be_attached_is_told_before_anything_is_made(turns: Turns, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("same", "a/same"):
        (tmp_path / name).write_text(name)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(c.MAX_ATTACHMENT_BYTES + 1)
    for attached, says in (
        (("gone",), "--attach 'gone' is not a file"),
        (("a",), "--attach 'a' is not a file"),
        (("same", "a/same"), "--attach: two files are called 'same'"),
        (("large",), f"--attach 'large' has {c.MAX_ATTACHMENT_BYTES + 1} bytes; the limit is {c.MAX_ATTACHMENT_BYTES}"),
    ):
        words = [word for name in attached for word in ("--attach", name)]
        code, said = await turned(turns, "say x", "--session", "nothing", *words, cwd=tmp_path)
        assert (code, said.count("\n")) == (2, 1), said
        assert says in said
    assert await turns.client.bus.last("REEL-0", turns.client.subjects(ORG, "nothing").event("session")) is None


async def test_a_service_attaches_below_uploads_alone_and_not_too_much(turns: Turns) -> None:
    session = await turns.site.session("served")
    attached = await turns.client.attach(ORG, session, "deep/er/a.txt", b"deep")
    assert (attached.path, attached.sha256) == ("uploads/deep/er/a.txt", hashlib.sha256(b"deep").hexdigest())
    for name in ("../a", "a/../../b", "/etc/passwd", "a//b", "", ".", "a\0b"):
        with pytest.raises(Malformed, match="is not one or more names"):
            await turns.client.attach(ORG, session, name, b"x")

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(c.MAX_ATTACHMENT_BYTES // 4 + 1)

    patched = pytest.MonkeyPatch()
    with patched.context() as patch:
        patch.setattr(c, "MAX_ATTACHMENT_BYTES", 1_000_000)
        with pytest.raises(Malformed, match="over the limit of 1000000 bytes"):
            await turns.client.attach(ORG, session, "large", endless())
    names = {entry.name async for entry in turns.client.files(ORG, session).entries("uploads")}
    assert names == {"deep"}, "what was too much is not there"


async def test_attachments_stand_in_the_workspace_before_it_starts(turns: Turns) -> None:
    session = await turns.site.session("attached")
    data = b"some bytes"
    await turns.client.files(ORG, session).write("uploads/a.txt", data)
    good = c.Attachment(path="uploads/a.txt", sha256=hashlib.sha256(data).hexdigest())
    _, turn = await turns.run("say hello", session, attachments=[good])
    assert turn.finished is not None
    assert turn.finished.status == "success"
    for bad, why in (
        (replace(good, sha256="0" * 64), "its SHA-256 is"),
        (c.Attachment(path="uploads/b.txt"), "uploads/b.txt"),
        (c.Attachment(path="c.txt", url="http://127.0.0.1:1/x"), "c.txt"),
    ):
        _, turn = await turns.run("say hello", session, attachments=[bad])
        assert turn.finished is not None
        assert turn.finished.status == "failed"
        assert (turn.finished.error or "").startswith("ATTACHMENT")
        assert why in (turn.finished.error or "")
        assert turn.accepted is False
