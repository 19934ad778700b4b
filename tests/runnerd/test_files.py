"""Files: chunks, digests, no half file under a final name, and no way out of the workspace."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandreel_core.contract.files import DeleteFile, FileStored, ListFiles, ReadFile, WriteFile
from sandreel_core.errors import NotFound, Refused
from sandreel_runnerd import chunk as chunk_module
from sandreel_runnerd import files as files_module
from sandreel_runnerd.files import Files
from sandreel_runnerd.root import Root
from sandreel_runnerd.upload import Upload


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    path = tmp_path / "workspace"
    path.mkdir()
    return path


@pytest.fixture
def files(workspace: Path) -> Iterator[Files]:
    before = len(names(Path("/proc/self/fd")))
    root = Root(str(workspace))
    files = Files(root, max_write_bytes=1024 * 1024)
    yield files
    files.close()
    root.close()
    assert len(names(Path("/proc/self/fd"))) == before, "a descriptor was left open"


def chunk(path: str, data: bytes, *, upload: str = "u", offset: int = 0, **more: object) -> WriteFile:
    encoded = base64.b64encode(data).decode()
    return WriteFile(path=path, upload=upload, offset=offset, base64=encoded, **more)  # type: ignore[arg-type]


def read_all(files: Files, path: str, length: int = 7) -> tuple[bytes, str | None]:
    data = b""
    while True:
        answer = files.read(ReadFile(path=path, offset=len(data), length=length))
        data += base64.b64decode(answer.base64)
        if answer.eof:
            return data, answer.sha256


def refused(code: str) -> pytest.RaisesExc[Refused]:
    return pytest.RaisesExc(Refused, check=lambda error: error.code == code)


def test_a_file_is_written_in_chunks_and_appears_only_when_it_is_whole(files: Files, workspace: Path) -> None:
    data = b"hello, " + bytes(range(256))
    digest = hashlib.sha256(data).hexdigest()
    assert files.write(chunk("a/b/c.bin", data[:100])) == (FileStored(size=100), None)
    assert not (workspace / "a/b/c.bin").exists()
    assert names(workspace / "a/b") == []
    # A repeat of what was taken is answered again, a hole is not taken.
    assert files.write(chunk("a/b/c.bin", data[:100])) == (FileStored(size=100), None)
    with refused("OUT_OF_ORDER"):
        files.write(chunk("a/b/c.bin", b"x", offset=200))
    last = chunk("a/b/c.bin", data[100:], offset=100, eof=True, sha256=digest, mode=0o755)
    assert files.write(last) == (FileStored(size=len(data), sha256=digest), "a/b/c.bin")
    assert files.write(last) == (FileStored(size=len(data), sha256=digest), None)
    assert (workspace / "a/b/c.bin").read_bytes() == data
    assert (workspace / "a/b/c.bin").stat().st_mode & 0o777 == 0o755
    assert names(workspace / "a/b") == ["c.bin"]
    assert read_all(files, "a/b/c.bin") == (data, digest)
    assert read_all(files, f"{workspace}/a/b/c.bin", 300)[0] == data


def test_an_upload_that_is_done_takes_no_other_file(files: Files, workspace: Path) -> None:
    files.write(chunk("f", b"one "))
    last = chunk("f", b"two", offset=4, eof=True)
    stored, _ = files.write(last)
    assert files.write(last) == (stored, None)
    assert files.write(chunk("f", b"one ")) == (stored, None)
    for other in (
        chunk("g", b"two", offset=4, eof=True),
        chunk("f", b"longer", offset=4, eof=True),
        chunk("f", b"2", offset=4, eof=True),
        chunk("f", b"one_two", eof=True),
        chunk("f", b"two", offset=4, eof=True, sha256="0" * 64),
    ):
        with refused("BAD_REQUEST"):
            files.write(other)
    assert files.write(chunk("f", b"one two", eof=True, sha256=(stored.sha256 or "").upper())) == (stored, None)
    assert names(workspace) == ["f"]


def test_a_last_chunk_that_comes_twice_at_once_is_answered_twice(
    files: Files, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, inside, go = Upload.append, threading.Event(), threading.Event()

    def slow(upload: Upload, data: bytes) -> None:
        inside.set()
        assert go.wait(10)
        append(upload, data)

    monkeypatch.setattr(Upload, "append", slow)
    last = chunk("f", b"hello", eof=True)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(files.write, last)
        assert inside.wait(10)
        second = threads.submit(files.write, last)
        time.sleep(0.05)  # it waits for the first, or will find what the first has left
        go.set()
        (stored, path), (again, nothing) = first.result(10), second.result(10)
    assert (path, nothing) == ("f", None)
    assert stored == again
    assert (workspace / "f").read_bytes() == b"hello"


def test_an_empty_file(files: Files, workspace: Path) -> None:
    assert files.write(chunk("empty", b"", eof=True))[1] == "empty"
    assert read_all(files, "empty") == (b"", hashlib.sha256().hexdigest())


def test_a_wrong_digest_leaves_the_old_file_and_nothing_else(files: Files, workspace: Path) -> None:
    (workspace / "f").write_text("old")
    with refused("CHECKSUM"):
        files.write(chunk("f", b"new", eof=True, sha256="0" * 64))
    assert (workspace / "f").read_text() == "old"
    assert names(workspace) == ["f"]
    files.write(chunk("f", b"new", eof=True))
    assert (workspace / "f").read_text() == "new"


def test_without_unnamed_files_a_temporary_name_is_used(
    files: Files, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def open(path: str, flags: int, *args: int, **more: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "not supported")
        return real(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", open)
    files.write(chunk("f", b"ab"))
    assert len(names(workspace)) == 1
    files.write(chunk("f", b"cd", offset=2, eof=True))
    assert names(workspace) == ["f"]
    files.write(chunk("g", b"ab", upload="g"))
    files.close()
    assert names(workspace) == ["f"]


def test_too_large_is_refused_and_leaves_nothing(files: Files, workspace: Path) -> None:
    block = b"x" * (256 * 1024)
    for index in range(4):
        files.write(chunk("big", block, offset=index * len(block)))
    with refused("TOO_LARGE"):
        files.write(chunk("big", b"x", offset=4 * len(block), eof=True))
    with refused("OUT_OF_ORDER"):
        files.write(chunk("big", b"x", offset=4 * len(block), eof=True))
    assert names(workspace) == []
    with refused("BAD_REQUEST"):
        files.write(chunk("big", block + b"x"))
    with refused("BAD_REQUEST"):
        files.write(WriteFile(path="big", upload="b", offset=0, base64="*"))


def test_uploads_are_bounded_and_idle_ones_are_forgotten(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(8):
        files.write(chunk("f", b"x", upload=f"u{index}"))
    with refused("UPLOAD_LIMIT"):
        files.write(chunk("f", b"x", upload="u8"))
    monkeypatch.setattr(files_module, "_UPLOAD_IDLE_S", -1.0)
    files.write(chunk("f", b"x", upload="u8", eof=True))


def test_a_file_over_20_mib_is_not_read(files: Files, workspace: Path) -> None:
    with (workspace / "big").open("wb") as file:
        file.truncate(20 * 1024 * 1024)
    assert files.read(ReadFile(path="big", length=1)).size == 20 * 1024 * 1024
    os.truncate(workspace / "big", 20 * 1024 * 1024 + 1)
    with refused("TOO_LARGE"):
        files.read(ReadFile(path="big"))


@pytest.mark.parametrize("path", ["..", "../outside/secret", "a/../../outside/secret", "/etc/passwd", "/", "x\0y"])
def test_no_path_leaves_the_workspace(files: Files, workspace: Path, path: str) -> None:
    (workspace / "a").mkdir()
    for act in (
        lambda: files.read(ReadFile(path=path)),
        lambda: files.list(ListFiles(path=path)),
        lambda: files.write(chunk(path, b"evil", eof=True)),
        lambda: files.delete(DeleteFile(path=path)),
    ):
        with refused("UNSAFE_PATH"):
            act()
    assert (workspace.parent / "outside" / "secret").read_text() == "secret"


def test_no_link_leaves_the_workspace(files: Files, workspace: Path) -> None:
    outside = workspace.parent / "outside"
    (workspace / "relative").symlink_to("../outside")
    (workspace / "absolute").symlink_to(outside)
    (workspace / "chain").symlink_to("relative/../outside")
    (workspace / "loop").symlink_to("loop")
    (workspace / "file").symlink_to("../outside/secret")
    for name in ("relative", "absolute", "chain", "loop"):
        with refused("UNSAFE_PATH"):
            files.list(ListFiles(path=name))
        with refused("UNSAFE_PATH"):
            files.read(ReadFile(path=f"{name}/secret"))
        with refused("UNSAFE_PATH"):
            files.write(chunk(f"{name}/secret", b"evil", eof=True))
        with refused("UNSAFE_PATH"):
            files.write(chunk(f"{name}/new/file", b"evil", eof=True))
        with refused("UNSAFE_PATH"):
            files.delete(DeleteFile(path=f"{name}/secret"))
    with refused("UNSAFE_PATH"):
        files.read(ReadFile(path="file"))
    # A write replaces the link itself; what it led to is as it was.
    files.write(chunk("file", b"mine", eof=True))
    assert not (workspace / "file").is_symlink()
    assert (outside / "secret").read_text() == "secret"
    assert names(outside) == ["secret"]


def test_links_inside_the_workspace_are_followed(files: Files, workspace: Path) -> None:
    (workspace / "v1").mkdir()
    (workspace / "v1" / "f").write_text("one")
    (workspace / "current").symlink_to("v1")
    (workspace / "absolute").symlink_to(workspace / "v1" / "f")
    assert read_all(files, "current/f")[0] == b"one"
    assert read_all(files, "absolute")[0] == b"one"
    assert files.write(chunk("current/g", b"x", eof=True))[1] == "v1/g"
    assert [entry.name for entry in files.list(ListFiles(path="current")).entries] == ["f", "g"]


def test_swapping_a_directory_for_a_link_never_lets_a_write_out(files: Files, workspace: Path) -> None:
    """The race that a check before an open loses."""
    outside = workspace.parent / "outside"
    (workspace / "real").mkdir()
    (workspace / "link").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        at = workspace / "at"
        while not stop.is_set():
            for source in ("real", "link"):
                try:
                    (workspace / source).rename(at)
                except OSError:  # a write has made the directory anew
                    shutil.rmtree(at, ignore_errors=True)
                else:
                    at.rename(workspace / source)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for index in range(400):
            try:
                files.write(chunk("at/evil", b"evil", upload=f"u{index}", eof=True))
            except (Refused, NotFound):
                continue
    finally:
        stop.set()
        thread.join()
    assert names(outside) == ["secret"]


def test_listing_tells_kinds_and_is_bounded(files: Files, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace / "d").mkdir()
    (workspace / "f").write_bytes(b"123")
    (workspace / "l").symlink_to("f")
    os.mkfifo(workspace / "p")
    Path(os.fsdecode(os.fsencode(workspace) + b"/\xff")).touch()
    listing = files.list(ListFiles())
    assert [(entry.name, entry.kind, entry.size) for entry in listing.entries] == [
        ("d", "dir", 0),
        ("f", "file", 3),
        ("l", "other", 0),
        ("p", "other", 0),
        ("\ufffd", "file", 0),
    ]
    assert not listing.truncated
    monkeypatch.setattr(files_module, "MAX_ENTRIES", 2)
    assert len((bounded := files.list(ListFiles())).entries) == 2
    assert bounded.truncated
    with refused("NOT_A_DIRECTORY"):
        files.list(ListFiles(path="f"))
    with pytest.raises(NotFound):
        files.list(ListFiles(path="nothing"))


def test_what_is_no_regular_file_is_not_read(files: Files, workspace: Path) -> None:
    os.mkfifo(workspace / "p")
    (workspace / "d").mkdir()
    for name in ("p", "d"):
        with refused("NOT_A_FILE"):
            files.read(ReadFile(path=name))
    for name in ("nothing", "nothing/at/all"):
        with pytest.raises(NotFound):
            files.read(ReadFile(path=name))
    with refused("NOT_A_FILE"):
        files.write(chunk("d", b"x", eof=True))
    with refused("NOT_A_DIRECTORY"):
        files.write(chunk("p/x", b"x", eof=True))


def test_delete(files: Files, workspace: Path) -> None:
    (workspace / "d").mkdir()
    (workspace / "d" / "f").touch()
    (workspace / "l").symlink_to("d/f")
    with refused("NOT_EMPTY"):
        files.delete(DeleteFile(path="d"))
    assert files.delete(DeleteFile(path="l")) == "l"
    assert files.delete(DeleteFile(path="./d//f")) == "d/f"
    assert files.delete(DeleteFile(path="d")) == "d"
    with pytest.raises(NotFound):
        files.delete(DeleteFile(path="d"))


def test_a_long_directory_comes_in_pages(files: Files, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "MAX_ENTRIES", 3)
    for name in ("a", "b", "c", "d", "e", "f", "g"):
        (workspace / name).touch()
    (workspace / os.fsdecode(b"d\xff")).touch()

    pages, after = [], None
    while True:
        page = files.list(ListFiles(after=after))
        pages.append([entry.name for entry in page.entries])
        after = page.next
        assert page.truncated is (after is not None)
        if after is None:
            break
    assert pages == [["a", "b", "c"], ["d", "d\ufffd", "e"], ["f", "g"]]
    with refused("BAD_REQUEST"):
        files.list(ListFiles(after="xyz"))


def test_a_pinned_file_of_any_size_is_read_in_one_state(
    files: Files, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_module, "MAX_READ_BYTES", 10)
    monkeypatch.setattr(chunk_module, "MAX_COPY_BYTES", 30)
    (workspace / "f").write_bytes(b"x" * 25)
    with refused("TOO_LARGE"):
        files.read(ReadFile(path="f"))
    first = files.read(ReadFile(path="f", length=7, pin=""))
    assert (first.size, first.eof, first.sha256, first.mode) == (25, False, None, 0o644)
    last = files.read(ReadFile(path="f", offset=21, length=7, pin=first.pin))
    assert (base64.b64decode(last.base64), last.eof, last.sha256, last.pin) == (b"xxxx", True, None, first.pin)
    digest = files.read(ReadFile(path="f", offset=25, length=1, pin=first.pin, sha256=True)).sha256
    assert digest == hashlib.sha256(b"x" * 25).hexdigest()
    assert files.read(ReadFile(path="f", length=30, pin="")).sha256 == digest

    # As large as before, and another file.
    (workspace / "g").write_bytes(b"y" * 25)
    (workspace / "g").rename(workspace / "f")
    with refused("CHANGED"):
        files.read(ReadFile(path="f", offset=21, pin=first.pin))
    (workspace / "f").write_bytes(b"y" * 31)
    with refused("TOO_LARGE"):
        files.read(ReadFile(path="f", pin=""))


def test_an_upload_that_is_given_up_leaves_nothing(files: Files, workspace: Path) -> None:
    for number in range(20):  # more than may be under way at once
        files.write(chunk("a/f", b"half", upload=f"u{number}"))
        assert files.write(chunk("a/f", b"", upload=f"u{number}", abort=True)) == (FileStored(size=0), None)
    assert files.write(chunk("a/f", b"", upload="never", abort=True)) == (FileStored(size=0), None)
    assert names(workspace / "a") == []
    with refused("OUT_OF_ORDER"):
        files.write(chunk("a/f", b"more", upload="u3", offset=4))
