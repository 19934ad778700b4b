"""A container engine of the test's own, to be restarted and filled up: the machine's is everybody's.

It lives in namespaces of its own (network, mounts, processes), because a second dockerd beside another one deletes its bridge and
rewrites its firewall; its data are a small memory disk there. It is reached by its socket alone, and its images are one
of 3 MB, whose main process does what a test of deaths needs of a runnerd.
"""

from __future__ import annotations

import asyncio
import gc
import io
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sandreel_core.spawner import docker_plan
from sandreel_core.spawner.docker_backend import DockerBackend
from tests.support.mark import OURS
from tests.support.rigs import Rig

IMAGE = "sandreel-tiny:1"
POOL = "10.203.0.0/16"
DISK_MIB = 48
LIMIT_S = 30
_DATA = "/run/data"
# Process 1 of its own namespaces: with it ends whatever the engine has left running. All that a dockerd keeps outside its
# data is below /run. A containerd that its dockerd takes along is an orphan that only a wait of process 1 clears away,
# and as a zombie would be taken for one that runs.
_INIT = f"""
mount -t tmpfs tmpfs /run && mkdir {_DATA} && mount -t tmpfs -o size={DISK_MIB}m tmpfs {_DATA} && ip link set lo up || exit 1
echo ready
while read -r word; do
  if [ "$word" = start ]; then
    dockerd --data-root {_DATA} --host "unix://$1/engine.sock" --bridge none >> "$1/dockerd.log" 2>&1 & engine=$!
  else
    kill -s "$word" $engine; wait $engine; sleep 0.2 & wait $!
  fi
  echo "$word"
done
"""
# Reads its settings to their end, says that it is there, and ends when it is told to.
_MAIN = "trap 'exit 0' TERM; cat > /dev/null; echo {} > seen.json; sleep 600 & wait"
_PROGRAMS = ("dash", "cat", "sleep")
_UNSHARE = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


class OwnEngine:
    def __init__(self, init: asyncio.subprocess.Process, directory: Path) -> None:
        self._init = init
        self._directory = directory

    @property
    def url(self) -> str:
        return f"unix://{self._directory}/engine.sock"

    @property
    def disk(self) -> Path:
        """Its data directory, as this process sees it."""
        return Path(f"/proc/{self._init.pid}/root{_DATA}")

    async def start(self) -> None:
        """Until it answers."""
        await self._say("start")
        limit = time.monotonic() + LIMIT_S
        while await asyncio.to_thread(self._silent):
            assert time.monotonic() < limit, (self._directory / "dockerd.log").read_text()[-2000:]
            await asyncio.sleep(0.05)

    async def end(self, how: signal.Signals) -> None:
        """Stop it, or kill it, and wait until it has ended."""
        await self._say(how.name.removeprefix("SIG"))

    async def _say(self, word: str) -> None:
        assert self._init.stdin is not None
        assert self._init.stdout is not None
        self._init.stdin.write(f"{word}\n".encode())
        async with asyncio.timeout(LIMIT_S):
            assert await self._init.stdout.readline() == f"{word}\n".encode()

    def docker(self, *words: str, stdin: bytes | None = None) -> str:
        done = subprocess.run(["docker", "-H", self.url, *words], input=stdin, capture_output=True, timeout=LIMIT_S)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr.decode(errors='replace')}"
        return done.stdout.decode().strip()

    def left(self) -> list[str]:
        """What it has but caches, which stay."""
        volumes = self.docker("volume", "ls", "-q").split()
        networks = self.docker("network", "ls", "-q", "--filter", "driver=bridge").split()
        return self.docker("ps", "-aq").split() + [name for name in volumes if not name.endswith("-cache")] + networks

    def _silent(self) -> bool:
        return bool(subprocess.run(["docker", "-H", self.url, "version"], capture_output=True).returncode)


def missing() -> str | None:
    """Why there can be none here; None: there can."""
    for program in ("dockerd", "docker", "unshare", *_PROGRAMS):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    done = subprocess.run([*_UNSHARE, "true"], capture_output=True)
    return "namespaces cannot be made" if done.returncode else None


@asynccontextmanager
async def own_engine(directory: Path) -> AsyncIterator[OwnEngine]:
    """One that answers and has the image. Nothing of it is left afterwards."""
    init = await asyncio.create_subprocess_exec(
        *(*_UNSHARE, "sh", "-c", _INIT, "init", str(directory)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert init.stdout is not None
        assert await init.stdout.readline() == b"ready\n"
        engine = OwnEngine(init, directory)
        await engine.start()
        entrypoint = f'ENTRYPOINT ["/bin/sh", "-c", "{_MAIN}"]'
        await asyncio.to_thread(engine.docker, "import", "-c", entrypoint, "-", IMAGE, stdin=_archive())
        yield engine
        await engine.end(signal.SIGTERM)
    finally:
        if init.returncode is None:
            init.kill()
        await init.wait()
        gc.collect()  # sockets that the SDK has forgotten, while the test may still be asked to overlook them


def _archive() -> bytes:
    """A root with a shell, two programs and what they are linked to, out of this machine's own."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for program in _PROGRAMS:
            path = shutil.which(program)
            assert path is not None
            _add(tar, path, f"bin/{'sh' if program == 'dash' else program}")
            linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
            for library in re.findall(r"(/\S+) \(0x", linked):
                if library.lstrip("/") not in tar.getnames():
                    _add(tar, library, library.lstrip("/"))
    return packed.getvalue()


def _add(tar: tarfile.TarFile, path: str, name: str) -> None:
    content = Path(path).read_bytes()
    info = tarfile.TarInfo(name)
    info.mode, info.size = 0o755, len(content)
    tar.addfile(info, io.BytesIO(content))


@asynccontextmanager
async def own_rig(directory: Path) -> AsyncIterator[tuple[OwnEngine, Rig]]:
    """A backend on such an engine."""
    async with own_engine(directory) as engine:
        terms = docker_plan.Terms(installation=OURS, node="here", image=IMAGE)
        opened = DockerBackend.open(terms, locks=directory / "locks", url=engine.url, pool=POOL)
        async with opened as backend:
            yield (
                engine,
                Rig(
                    backend,
                    again=lambda: DockerBackend.open(terms, locks=directory / "locks", url=engine.url, pool=POOL),
                    workspace=lambda key: engine.disk / "volumes" / docker_plan.volume_name(OURS, key) / "_data",
                    data=directory,
                    kill=lambda sandbox: asyncio.to_thread(_discarded, engine, "kill", sandbox.ref),
                    refusing=lambda patch: None,
                    left=engine.left,
                    remembers=True,
                ),
            )


def _discarded(engine: OwnEngine, *words: str) -> None:
    engine.docker(*words)
