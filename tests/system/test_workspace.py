"""A workspace of the process backend that its session can no longer write: the resume fails in so many words, and the files stay."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandreel_core.errors import Refused
from tests.support.system import ORG, Site

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can take a directory away from its owner"),
]


async def test_a_workspace_that_is_somebody_elses_fails_the_resume_and_keeps_the_files(site: Site) -> None:
    session = await stopped(site)
    workspace = site.folder(session).workspace
    kept = workspace.stat()
    os.chown(workspace, 0, 0)
    try:
        await refused(site, session, stage="resume", says="uid")
    finally:
        os.chown(workspace, kept.st_uid, kept.st_gid)
    await goes_on(site, session)


async def test_a_workspace_that_is_mounted_read_only_fails_the_boot_and_keeps_the_files(site: Site) -> None:
    """Its mode shows nothing of that: runnerd itself finds it out."""
    session = await stopped(site)
    with read_only(site.folder(session).workspace):
        await refused(site, session, stage="boot", says="cannot write its workspace")
    await goes_on(site, session)


async def stopped(site: Site) -> str:
    session = await site.session()
    await site.client.run(ORG, session, ["sh", "-c", "echo kept > file"])
    await site.client.stop(ORG, session)
    return session


async def refused(site: Site, session: str, *, stage: str, says: str) -> None:
    with pytest.raises(Refused, match=f"WORKSPACE_UNWRITABLE: .*{says}"):
        await site.client.resume(ORG, session, timeout_s=60)
    failure = (await site.client.session(ORG, session)).state.failure
    assert failure is not None
    assert (failure.stage, failure.code) == (stage, "WORKSPACE_UNWRITABLE")


async def goes_on(site: Site, session: str) -> None:
    await site.client.resume(ORG, session, timeout_s=60)
    assert (await site.client.run(ORG, session, ["cat", "file"])).stdout == b"kept\n"


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", path, path], check=True, timeout=20)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True, timeout=20)
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True, timeout=20)
