"""The spool: a ring of records in a file without a name."""

from __future__ import annotations

import asyncio
import os
import stat
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandreel_core.errors import Unavailable
from sandreel_runnerd.spool import NoRoom, Record, Unwritable, open_spool


async def test_the_space_is_reserved_and_the_file_has_no_name(tmp_path: Path) -> None:
    async with open_spool(1 << 20, str(tmp_path)) as spool:
        assert list(tmp_path.iterdir()) == []
        opened = [fd.stat() for fd in Path("/proc/self/fd").iterdir() if fd.exists()]
        assert any(file.st_nlink == 0 and file.st_blocks * 512 >= 1 << 20 for file in opened)
        await spool.append(Record(1, 2, b"x"))
    assert list(tmp_path.iterdir()) == []


async def test_no_space_is_said(tmp_path: Path) -> None:
    for capacity, directory, kind in (
        (1 << 60, tmp_path, NoRoom),
        (1 << 20, Path("/sys"), Unwritable),  # whoever asks: nobody makes files there
        (1 << 20, tmp_path / "absent", Unavailable),
    ):
        with pytest.raises(kind):
            async with open_spool(capacity, str(directory)):
                pass


async def test_a_workspace_that_its_own_session_has_closed_is_opened(tmp_path: Path) -> None:
    tmp_path.chmod(0o100)
    async with open_spool(1 << 20, str(tmp_path)):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


async def test_a_full_spool_takes_nothing_more_until_something_is_taken(tmp_path: Path) -> None:
    async with open_spool(1000, str(tmp_path)) as spool:
        await spool.append(Record(1, 1, b"a" * 900))
        assert not spool.fits(b"b" * 69)
        assert spool.fits(b"b" * 68)
        assert await spool.take() == [Record(1, 1, b"a" * 900)]
        assert spool.used_bytes == 0
        assert spool.fits(b"b" * 984)
        assert not spool.fits(b"b" * 985)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 400), st.just(-1)), max_size=60), st.integers(1, 600))
def test_law_3_the_spool_gives_back_every_record_in_order(steps: list[int], at_once: int) -> None:
    """Records of `steps` bytes; -1 takes. Around the ring's end as often as it comes."""

    async def run() -> None:
        expected: deque[Record] = deque()
        async with open_spool(1024) as spool:
            for n, size in enumerate(steps):
                if size < 0:
                    for record in await spool.take(at_once):
                        assert record == expected.popleft()
                elif spool.fits(b"x" * size):
                    record = Record(size, n, os.urandom(size))
                    expected.append(record)
                    await spool.append(record)
            while expected:
                records = await spool.take(at_once)
                assert records
                for record in records:
                    assert record == expected.popleft()
            assert await spool.take() == []
            assert spool.used_bytes == 0

    asyncio.run(run())


async def test_law_9_a_spool_that_cannot_be_written_takes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: int, data: bytes, place: int) -> int:
        raise OSError(5, "Input/output error")

    async with open_spool(4096) as spool:
        await spool.append(Record(1, 1, b"kept"))
        monkeypatch.setattr(os, "pwrite", fail)
        with pytest.raises(Unavailable):
            await spool.append(Record(1, 2, b"lost"))
        assert not spool.fits(b"")
        assert await spool.take() == [Record(1, 1, b"kept")]
        assert await spool.take() == []
