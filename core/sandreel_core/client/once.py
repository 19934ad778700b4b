"""A session that lives for one exec: files in, the exec, files out, and it is destroyed whatever happens."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sandreel_core import clock
from sandreel_core.client.handle import ExecHandle
from sandreel_core.client.result import Result
from sandreel_core.contract.message import Owner
from sandreel_core.contract.session import Profile
from sandreel_core.errors import NotFound, Refused, SandreelError, Unavailable

if TYPE_CHECKING:
    from sandreel_core.client.client import Client

# behaviour §2.7, all of them.
TIMEOUT_S, MAX_TIMEOUT_S = 30.0, 300.0
MAX_FILES = 50
MAX_PATH_CHARS = 200
MAX_OUT_BYTES, MAX_OUT_TOTAL_BYTES = 50 << 20, 100 << 20
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
# For a client that is killed: the spawner stops what was left alone for so long (nothing is idle while its exec runs),
# and whatever goes on, after the longest exec and as long again for its files.
IDLE_TIMEOUT_S = MAX_TIMEOUT_S
TTL_S = 3 * MAX_TIMEOUT_S
OWNER_TYPE = "once"
# As `lifecycle.STOPPED_WITHIN_S`: a stop takes at most 60 s.
GONE_WITHIN_S = 90.0


@dataclass(frozen=True, slots=True)
class Once:
    """What became of it. `files` are the outputs by path, `missing` says for each of the others why it did not come;
    `left`, why the session may be there still (None: it is destroyed)."""

    result: Result
    files: dict[str, bytes]
    missing: dict[str, str]
    left: str | None

    @property
    def ok(self) -> bool:
        return self.result.ok and not self.missing


class OneShot:
    """Made by `Client.one_shot`. `left` is told when its block has ended: see `Once`."""

    def __init__(self, client: Client, org: str, session: str) -> None:
        self._client = client
        self.org = org
        self.session = session
        self.left: str | None = None
        self._out_bytes = 0
        self.files = client.files(org, session, admit=self._admit)

    async def start(
        self,
        argv: Sequence[str] | None = None,
        *,
        shell: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | str = b"",
        hold_stdin: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> ExecHandle:
        """The one exec; as `Client.exec`, with a time-out of at most MAX_TIMEOUT_S (BAD_REQUEST)."""
        check_timeout(timeout_s)
        return await self._client.exec(
            self.org,
            self.session,
            argv,
            shell=shell,
            cwd=cwd,
            env=env,
            stdin=stdin,
            hold_stdin=hold_stdin,
            timeout_s=timeout_s,
            deadline=clock.now() + timedelta(seconds=self._client.answer_timeout_s),
        )

    def _admit(self, path: str, size: int) -> None:
        """Raises Refused (TOO_LARGE) for what is over the limits of what comes out."""
        if size > MAX_OUT_BYTES:
            raise Refused("TOO_LARGE", f"{path!r} has {size} bytes, and at most {MAX_OUT_BYTES} come out of a file")
        if self._out_bytes + size > MAX_OUT_TOTAL_BYTES:
            raise Refused(
                "TOO_LARGE", f"with the {size} bytes of {path!r} more than {MAX_OUT_TOTAL_BYTES} would come out in all"
            )
        self._out_bytes += size

    async def destroy(self) -> None:
        """Until it is destroyed. Raises nothing: `left` says what went wrong."""
        self.left = "its end was not waited for"
        try:
            await self._client.destroy(self.org, self.session, timeout_s=GONE_WITHIN_S)
        except Refused as refused:
            # It was never made: the quota was used up, for one.
            self.left = None if refused.code == "SESSION_NOT_FOUND" else str(refused)
        except SandreelError as error:
            self.left = str(error)
        else:
            self.left = None


@asynccontextmanager
async def one_shot(
    client: Client, org: str, *, profile: Profile, image: str | None, env: Mapping[str, str] | None
) -> AsyncIterator[OneShot]:
    """See `Client.one_shot`."""
    session = clock.new_token("once-")
    shot = OneShot(client, org, session)
    try:
        await client.create_session(
            org,
            session,
            owner=Owner(type=OWNER_TYPE, id=session),
            profile=profile,
            image=image,
            env=env,
            ttl_s=TTL_S,
            idle_timeout_s=IDLE_TIMEOUT_S,
        )
        yield shot
    finally:
        # Also of a create whose answer did not come, and while this is cancelled; a second cancellation gives up the wait.
        await asyncio.shield(asyncio.ensure_future(shot.destroy()))


async def once(
    client: Client,
    org: str,
    argv: Sequence[str] | None,
    *,
    shell: str | None,
    profile: Profile,
    image: str | None,
    env: Mapping[str, str] | None,
    stdin: bytes | str,
    files: Mapping[str, bytes | AsyncIterable[bytes]],
    outputs: Sequence[str],
    timeout_s: float,
    max_bytes: int,
) -> Once:
    """See `Client.once`."""
    check_timeout(timeout_s)
    check_paths(files)
    check_paths(outputs)
    taken: dict[str, bytes] = {}
    missing: dict[str, str] = {}
    async with one_shot(client, org, profile=profile, image=image, env=None) as shot:
        for path, data in files.items():
            await shot.files.write(path, data)
        handle = await shot.start(argv, shell=shell, env=env, stdin=stdin, timeout_s=timeout_s)
        result = await handle.collect(max_bytes=max_bytes)
        for path in outputs:
            try:
                taken[path] = await shot.files.read(path, max_bytes=MAX_OUT_BYTES)
            except (Refused, NotFound, Unavailable) as error:
                missing[path] = str(error)
    return Once(result, taken, missing, shot.left)


def check_timeout(timeout_s: float) -> None:
    """Raises Refused (BAD_REQUEST)."""
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise Refused("BAD_REQUEST", f"the time-out is above 0 and at most {MAX_TIMEOUT_S:g} s, not {timeout_s:g} s")


def check_paths(paths: Iterable[str]) -> None:
    """Paths of files that go in, or come out. Raises Refused (BAD_REQUEST) for the first that is not in order."""
    seen: set[str] = set()
    for path in paths:
        if len(path) > MAX_PATH_CHARS:
            raise Refused(
                "BAD_REQUEST", f"a path has at most {MAX_PATH_CHARS} characters, {path[:40]!r}… has {len(path)}"
            )
        for segment in path.split("/"):
            if segment in (".", "..") or not _SEGMENT.fullmatch(segment):
                raise Refused(
                    "BAD_REQUEST",
                    f"path {path!r}: between slashes stand letters, digits, '.', '_' and '-', and neither . nor ..",
                )
        if path in seen:
            raise Refused("BAD_REQUEST", f"path {path!r} is there twice")
        seen.add(path)
    if len(seen) > MAX_FILES:
        raise Refused("BAD_REQUEST", f"{len(seen)} files, and at most {MAX_FILES} are possible")
