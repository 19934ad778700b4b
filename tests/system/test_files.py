"""`cp`, `files` and `env`, and the client under them, against everything real."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from sandreel_core.contract.files import FILE_CHUNK_BYTES, MAX_READ_BYTES
from sandreel_core.contract.workspace import FileWritten
from sandreel_core.errors import NotFound, Refused
from tests.support.program import Done, sandreel, started
from tests.support.system import ORG, Site, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(site: Site) -> str:
    return await site.session("files")


def tree(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def folders(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir() and not path.is_symlink()}


async def test_a_directory_goes_in_and_comes_out_the_same(site: Site, session: str, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "sub/deep").mkdir(parents=True)
    (source / "one").write_bytes(os.urandom(FILE_CHUNK_BYTES * 2 + 17))
    (source / "sub/empty").write_bytes(b"")
    (source / "sub/deep/run me").write_bytes(b"#!/bin/sh\n")
    (source / "sub/deep/run me").chmod(0o755)
    (source / "link").symlink_to("one")
    (source / "nothing/at all").mkdir(parents=True)
    (source / "only a link").mkdir()
    (source / "only a link/there").symlink_to("nowhere")

    into = await sandreel(site.data, "cp", str(source), f"{session}:", "--json")
    told = [json.loads(line) for line in into.out.splitlines()]
    out = await sandreel(site.data, "cp", f"{session}:tree", str(tmp_path / "back"))
    again = await sandreel(site.data, "cp", f"{session}:tree/.", str(tmp_path / "back"))

    assert (into.code, out, again) == (0, Done(0, b"", ""), Done(0, b"", ""))
    assert tree(site.folder(session).workspace / "tree") == tree(tmp_path / "back") == tree(source)
    assert folders(site.folder(session).workspace / "tree") == folders(tmp_path / "back") == folders(source)
    assert {each["target"] for each in told if each["type"] == "made"} == {
        *(f"{session}:tree/nothing/at all", f"{session}:tree/only a link")
    }
    assert {each["source"]: each["type"] for each in told}[str(source / "link")] == "skipped"
    digests = {each["target"]: each["sha256"] for each in told if each["type"] == "copied"}
    assert digests[f"{session}:tree/one"] == hashlib.sha256((source / "one").read_bytes()).hexdigest()


async def test_an_empty_directory_is_copied(site: Site, session: str, tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()

    into = await sandreel(site.data, "cp", str(tmp_path / "void"), f"{session}:hollow")
    out = await sandreel(site.data, "cp", f"{session}:hollow", str(tmp_path / "back"))
    await site.client.files(ORG, session).write("file", b"")
    refused = await sandreel(site.data, "cp", str(tmp_path / "void"), f"{session}:file/hollow")

    assert (into, out) == (Done(0, b"", ""), Done(0, b"", ""))
    assert list((site.folder(session).workspace / "hollow").iterdir()) == list((tmp_path / "back").iterdir()) == []
    assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
    assert "file" in refused.err


async def test_a_file_larger_than_one_read_comes_out_whole(site: Site, session: str, tmp_path: Path) -> None:
    size = MAX_READ_BYTES + FILE_CHUNK_BYTES + 1
    await site.client.run(ORG, session, shell=f"head -c {size} /dev/urandom > large")
    files = site.client.files(ORG, session)
    with pytest.raises(Refused, match="TOO_LARGE"):
        await files.read("large")

    done = await sandreel(site.data, "cp", f"{session}:large", f"{tmp_path}/")

    assert done == Done(0, b"", "")
    with (tmp_path / "large").open("rb") as copy, (site.folder(session).workspace / "large").open("rb") as original:
        assert hashlib.file_digest(copy, "sha256").digest() == hashlib.file_digest(original, "sha256").digest()


async def test_stdin_and_stdout(site: Site, session: str) -> None:
    data = os.urandom(300_000)

    assert await sandreel(site.data, "cp", "-", f"{session}:a/piped", stdin=data) == Done(0, b"", "")
    assert await sandreel(site.data, "cp", f"{session}:a/piped", "-") == Done(0, data, "")
    assert await sandreel(site.data, "files", "write", session, "a/run", "--mode", "755", stdin=b"x") == Done(
        0, b"", ""
    )
    assert await sandreel(site.data, "files", "cat", session, "a/run") == Done(0, b"x", "")
    listed = json.loads((await sandreel(site.data, "files", "ls", session, "a", "--json")).out.splitlines()[1])
    assert (listed["name"], listed["size"], listed["mode"]) == ("run", 1, 0o755)
    assert (await sandreel(site.data, "files", "rm", session, "a/piped", "a/nope")).err.count("\n") == 1
    assert [entry.name async for entry in site.client.files(ORG, session).entries("a")] == ["run"]


async def test_a_copy_in_that_is_killed_leaves_no_file(site: Site, session: str) -> None:
    process = await started(site.data, "cp", "-", f"{session}:cut/half", stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    # A pipe holds 64 KiB: what it has taken beyond was sent, but for a piece or two.
    process.stdin.write(bytes(FILE_CHUNK_BYTES * 8))
    await process.stdin.drain()
    directory = site.folder(session).workspace / "cut"
    await until(directory.exists, "the first piece has arrived")

    process.kill()
    await process.wait()

    assert [path.name for path in directory.iterdir() if not path.name.startswith(".sandreel-upload-")] == []
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.close()
        await process.stdin.wait_closed()
    await process.communicate()
    # The name is free, and the next one is not disturbed.
    await site.client.files(ORG, session).write("cut/half", b"whole")
    assert (directory / "half").read_bytes() == b"whole"


async def test_a_copy_out_that_is_killed_leaves_no_file(site: Site, session: str, tmp_path: Path) -> None:
    await site.client.run(ORG, session, shell="truncate -s 1G sparse")
    target = tmp_path / "out" / "sparse"
    process = await started(site.data, "cp", f"{session}:sparse", str(target))

    def gathering() -> bool:
        for fd in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):
                if str(target.parent) in str(fd.readlink()) and fd.stat().st_size > 0:
                    return True
        return False

    await until(gathering, "some of it has arrived")
    os.kill(process.pid, signal.SIGKILL)
    await process.communicate()

    assert not target.exists()


async def test_a_copy_outlives_the_server(site: Site, session: str, tmp_path: Path) -> None:
    data = os.urandom(FILE_CHUNK_BYTES * 6)
    process = await started(site.data, "cp", "-", f"{session}:survivor", stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(data[: FILE_CHUNK_BYTES * 4])
    await process.stdin.drain()
    await site.kill("nats")
    process.stdin.write(data[FILE_CHUNK_BYTES * 4 :])
    process.stdin.close()
    async with asyncio.timeout(90):
        _, err = await process.communicate()

    assert process.returncode == 0, err
    assert (site.folder(session).workspace / "survivor").read_bytes() == data


async def test_what_changes_under_the_copy_is_refused(site: Site, session: str) -> None:
    files = site.client.files(ORG, session)
    await files.write("moving", bytes(FILE_CHUNK_BYTES * 12))
    download = await files.open("moving")
    pieces = download.pieces()
    await anext(pieces)
    await site.client.run(ORG, session, shell="echo more >> moving")

    with pytest.raises(Refused, match="CHANGED"):
        async for _ in pieces:
            pass
    assert download.sha256 is None


async def test_a_writer_that_fails_leaves_nothing(site: Site, session: str) -> None:
    files = site.client.files(ORG, session)

    async def broken() -> AsyncIterator[bytes]:
        yield bytes(FILE_CHUNK_BYTES)
        raise OSError("the disk is gone")

    for _ in range(10):  # more than may be under way at once: each was given up
        with pytest.raises(OSError, match="the disk is gone"):
            await files.write("never/there", broken())
    assert [entry async for entry in files.entries("never")] == []


async def test_a_change_is_an_event_and_a_read_is_none(site: Site, session: str) -> None:
    stored = await site.client.files(ORG, session).write("noted", b"abc")
    assert await site.client.files(ORG, session).read("noted") == b"abc"

    subject = site.client.subjects(ORG, session).event("workspace")
    last = await site.client.bus.last("REEL-0", subject)
    assert last is not None
    event = json.loads(last.body)
    assert (event["type"], event["data"]["path"], event["data"]["sha256"]) == (
        *(FileWritten.type, "noted", stored.sha256),
    )
    assert event["actor"] == "system-tests"


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "out/x", "a/../../x"])
async def test_no_path_leaves_the_workspace(site: Site, session: str, path: str, tmp_path: Path) -> None:
    await site.client.run(ORG, session, shell="ln -sfn / out")
    (tmp_path / "file").write_text("x")

    for args in (
        ("cp", str(tmp_path / "file"), f"{session}:{path}"),
        ("cp", f"{session}:{path}", str(tmp_path / "got")),
        ("files", "rm", session, path),
    ):
        done = await sandreel(site.data, *args)
        assert done.code == 2, args
        assert "UNSAFE_PATH" in done.err
        assert done.err.count("\n") == 1
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        (("cp", "a", "b"), "SESSION:PATH"),
        (("cp", "S:a", "S:b"), "SESSION:PATH"),
        (("cp", "S:nope", "."), "nope"),
        (("cp", "./nope", "S:"), "nope"),
        (("cp", "/dev/zero", "S:zero"), "no file"),
        (("cp", "-", "nope:x"), "nobody"),
        (("files", "ls", "S", "nope"), "nope"),
        (("files", "cat", "S", "."), "NOT_A_FILE"),
        (("files", "write", "S", "x", "--mode", "999"), "permission"),
        (("env", "S", "set", "A"), "NAME=VALUE"),
        (("env", "S", "set"), "NAME=VALUE"),
        (("env", "nope"), "no session nope"),
    ],
)
async def test_a_mistake_is_one_line(site: Site, session: str, args: tuple[str, ...], phrase: str) -> None:
    done = await sandreel(site.data, *(word.replace("S", session, 1) if word[0] == "S" else word for word in args))

    assert (done.code, done.out) == (2, b"")
    assert phrase in done.err
    assert done.err.count("\n") == 1


async def test_variables(site: Site) -> None:
    session = await site.session("env", env={"SEED": "1"})
    denied = await sandreel(site.data, "env", session, "set", "COLOR=blue", "PATH=/x", "TWO=a\nb")
    shown = await sandreel(site.data, "env", session)
    await sandreel(site.data, "env", session, "unset", "SEED")

    assert denied.code == 2
    assert denied.err.startswith("sandreel: PATH is denied")
    assert shown == Done(0, b"COLOR=blue\nSEED=1\nTWO=a\\nb\n", "sandreel: PATH was asked for and denied\n")
    assert (await site.client.run(ORG, session, shell='printf "$COLOR$SEED"')).stdout == b"blue"
    await site.client.stop(ORG, session)
    found = await site.client.env(ORG, session).read()
    assert (found.values, found.denied) == ({"COLOR": "blue", "TWO": "a\nb"}, ("PATH",))
    with pytest.raises(NotFound):
        await site.client.env(ORG, "nope").read()
    await site.client.destroy(ORG, session)
